use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use llambo_proto::v1::{self, cluster_client::ClusterClient, inference_client::InferenceClient};
use tonic::{Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{Ask, Credentials, Error, Generation, credentials::Transport};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A host that answers no ping for `PING_TIMEOUT`, sent every `PING_INTERVAL` while a call waits, counts as gone.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one answer: a page of nodes or 256 embeddings are the largest there are.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Nodes fetched with one call, about 1 MB.
const PAGE: u32 = 10_000;

/// A connection to a host. Clones share it; calls run side by side over one HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Transport,
    address: String,
}

/// Whether a service of the host takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// It does not, for example because the host drains.
    NotServing,
}

/// Which nodes to list; everything left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Only nodes of this type.
    pub node_type: String,
    /// Only nodes in this state, such as `ready`.
    pub state: String,
    /// At most so many, in order of id.
    pub limit: Option<u32>,
}

/// A status every so often. Dropping it ends the watch.
pub type StatusStream = Pin<Box<dyn Stream<Item = Result<v1::StatusResponse, Error>> + Send>>;

impl Client {
    /// Connects now, and shows nothing.
    ///
    /// # Errors
    /// As [`Client::connect_with`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, &Credentials::default()).await
    }

    /// Connects now. The address begins with `https://` where the host encrypts.
    ///
    /// # Errors
    /// [`Error::Address`] for what is no address, [`Error::Credentials`] for certificates that cannot be used,
    /// [`Error::Unreachable`] when nothing answers within 5 seconds.
    pub async fn connect_with(address: &str, credentials: &Credentials) -> Result<Self, Error> {
        let channel = endpoint(address, credentials)?
            .connect()
            .await
            .map_err(|e| Error::Unreachable { address: address.to_owned(), why: crate::error::deepest(&e) })?;
        Ok(Self { channel: credentials.over(channel), address: address.to_owned() })
    }

    /// Connects with the first call, and again whenever the connection was lost; shows nothing. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Client::connect_lazily_with`].
    pub fn connect_lazily(address: &str) -> Result<Self, Error> {
        Self::connect_lazily_with(address, &Credentials::default())
    }

    /// Connects with the first call, and again whenever the connection was lost. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Address`] for what is no address, [`Error::Credentials`] for certificates that cannot be used.
    pub fn connect_lazily_with(address: &str, credentials: &Credentials) -> Result<Self, Error> {
        let channel = endpoint(address, credentials)?.connect_lazy();
        Ok(Self { channel: credentials.over(channel), address: address.to_owned() })
    }

    /// Where it is connected to, as given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Streams an answer.
    ///
    /// # Errors
    /// What the host refuses before a node has taken the request; later failures are items of the stream.
    pub async fn generate(&self, ask: Ask) -> Result<Generation, Error> {
        let (request, timeout) = ask.into_parts();
        let messages = self.inference().generate(request).await.map_err(self.refused())?.into_inner();
        Ok(Generation::new(messages, self.address.clone(), timeout))
    }

    /// A whole answer at once. Dropping the future cancels the request on the host.
    ///
    /// ```no_run
    /// # async fn example(client: llambo_client::Client) -> Result<(), llambo_client::Error> {
    /// use llambo_client::Ask;
    /// let answer = client.infer(Ask::text("Once upon a time").max_tokens(16).seed(1)).await?;
    /// println!("{} ({})", answer.text, answer.finish_reason);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn infer(&self, ask: Ask) -> Result<v1::InferResponse, Error> {
        self.done(self.inference().infer(ask.into_parts().0).await)
    }

    /// The embeddings of 1 to 256 texts, each of length 1; an empty model name takes the host's default.
    pub async fn embed(&self, model: &str, texts: Vec<String>) -> Result<v1::EmbedResponse, Error> {
        self.done(self.inference().embed(v1::EmbedRequest { model: model.to_owned(), texts }).await)
    }

    /// The models that can be asked.
    pub async fn models(&self) -> Result<Vec<v1::Model>, Error> {
        Ok(self.done(self.inference().list_models(v1::ListModelsRequest {}).await)?.models)
    }

    /// Adds `count` nodes of a type.
    pub async fn spawn(&self, node_type: &str, count: u32) -> Result<v1::SpawnResponse, Error> {
        self.done(self.cluster().spawn(v1::SpawnRequest { r#type: node_type.to_owned(), count }).await)
    }

    /// Brings a type to `count` nodes; those that go finish what they have first.
    pub async fn scale(&self, node_type: &str, count: u32) -> Result<v1::ScaleResponse, Error> {
        self.done(self.cluster().scale(v1::ScaleRequest { r#type: node_type.to_owned(), count }).await)
    }

    /// Takes the nodes with these ids out of service once they are idle.
    pub async fn drain_nodes(&self, nodes: Vec<String>) -> Result<v1::DrainResponse, Error> {
        if nodes.is_empty() {
            // on the wire this would mean the whole host
            return Ok(v1::DrainResponse { draining: 0 });
        }
        self.drain(v1::DrainRequest { nodes, r#type: String::new() }).await
    }

    /// Puts idle isolates aside on disk: those named, or all of a type.
    pub async fn hibernate(&self, nodes: Vec<String>, node_type: &str) -> Result<v1::HibernateResponse, Error> {
        self.done(self.cluster().hibernate(v1::HibernateRequest { nodes, r#type: node_type.to_owned() }).await)
    }

    /// Wakes isolates before a request does: those named, or all of a type.
    pub async fn wake(&self, nodes: Vec<String>, node_type: &str) -> Result<v1::WakeResponse, Error> {
        self.done(self.cluster().wake(v1::WakeRequest { nodes, r#type: node_type.to_owned(), adopt: false }).await)
    }

    /// Takes in isolates that another host, or an earlier run, left in the host's folder.
    pub async fn adopt(&self) -> Result<v1::WakeResponse, Error> {
        self.done(self.cluster().wake(v1::WakeRequest { adopt: true, ..v1::WakeRequest::default() }).await)
    }

    /// Takes all nodes of a type out of service once they are idle.
    ///
    /// # Errors
    /// Besides the host's own: an empty name is refused here, since on the wire it would mean the whole host.
    pub async fn drain_type(&self, node_type: &str) -> Result<v1::DrainResponse, Error> {
        if node_type.is_empty() {
            return Err(Error::of(&Status::invalid_argument("the node type to drain has no name"), &self.address));
        }
        self.drain(v1::DrainRequest { nodes: Vec::new(), r#type: node_type.to_owned() }).await
    }

    /// Takes the whole host out of service; it exits when the last request is done.
    pub async fn drain_host(&self) -> Result<v1::DrainResponse, Error> {
        self.drain(v1::DrainRequest::default()).await
    }

    /// The nodes that match, in order of id, fetched page by page.
    pub async fn nodes(&self, filter: &NodeFilter) -> Result<Vec<v1::Node>, Error> {
        let wanted = filter.limit.unwrap_or(u32::MAX);
        let mut nodes: Vec<v1::Node> = Vec::new();
        loop {
            let offset = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            let limit = PAGE.min(wanted - offset.min(wanted));
            if limit == 0 {
                return Ok(nodes);
            }
            let request = v1::ListNodesRequest { r#type: filter.node_type.clone(), state: filter.state.clone(), limit, offset };
            let page = self.done(self.cluster().list_nodes(request).await)?;
            let is_last = page.nodes.is_empty() || u64::from(offset) + page.nodes.len() as u64 >= u64::from(page.total);
            nodes.extend(page.nodes);
            if is_last {
                return Ok(nodes);
            }
        }
    }

    /// The hosts that can be managed through this one, with what their machines have.
    pub async fn hosts(&self) -> Result<Vec<v1::Host>, Error> {
        Ok(self.done(self.cluster().list_hosts(v1::ListHostsRequest {}).await)?.hosts)
    }

    /// The cluster now.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        self.done(self.cluster().status(v1::StatusRequest {}).await)
    }

    /// The cluster now and whenever the interval has passed; the host allows 0.1 to 60 seconds.
    pub async fn watch(&self, interval: Duration) -> Result<StatusStream, Error> {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let stream = self.done(self.cluster().watch_status(v1::WatchStatusRequest { interval_ms }).await)?;
        let address = self.address.clone();
        Ok(stream.map(move |status| status.map_err(|e| Error::of(&e, &address))).boxed())
    }

    /// The strategy and how it does.
    pub async fn balancer(&self) -> Result<v1::GetBalancerResponse, Error> {
        self.done(self.cluster().get_balancer(v1::GetBalancerRequest {}).await)
    }

    /// Switches the strategy for all requests that come after.
    pub async fn set_balancer(&self, strategy: &str) -> Result<v1::SetBalancerResponse, Error> {
        self.done(self.cluster().set_balancer(v1::SetBalancerRequest { strategy: strategy.to_owned() }).await)
    }

    /// Whether a service, such as `llambo.v1.Inference`, takes requests; the empty name asks for the whole host.
    pub async fn health(&self, service: &str) -> Result<Health, Error> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = self.done(HealthClient::new(self.channel.clone()).check(request).await)?;
        Ok(if answer.status() == ServingStatus::Serving { Health::Serving } else { Health::NotServing })
    }

    async fn drain(&self, request: v1::DrainRequest) -> Result<v1::DrainResponse, Error> {
        self.done(self.cluster().drain(request).await)
    }

    fn inference(&self) -> InferenceClient<Transport> {
        InferenceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn cluster(&self) -> ClusterClient<Transport> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn channel(&self) -> Transport {
        self.channel.clone()
    }

    pub(crate) fn done<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Error> {
        answer.map(tonic::Response::into_inner).map_err(self.refused())
    }

    fn refused(&self) -> impl Fn(Status) -> Error {
        |status| Error::of(&status, &self.address)
    }
}

fn endpoint(address: &str, credentials: &Credentials) -> Result<Endpoint, Error> {
    let wrong = |why: &str| Error::Address { address: address.to_owned(), why: why.to_owned() };
    let Some((scheme @ ("http" | "https"), rest)) = address.split_once("://") else {
        return Err(wrong("it does not start with `http://` or `https://`"));
    };
    if rest.trim_end_matches('/').is_empty() {
        return Err(wrong("it names no host"));
    }
    let mut endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong("it is no valid address"))?;
    if scheme == "https" {
        let unfit = |e| Error::Credentials(format!("the certificates cannot be used: {}", crate::error::deepest(&e)));
        endpoint = endpoint.tls_config(credentials.tls()).map_err(unfit)?;
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn what_is_no_address_is_refused_with_an_example() {
        for bad in ["127.0.0.1:7400", "ftp://host", "https://", "http://", "http:///", "http://a b"] {
            let error = Client::connect_lazily(bad).unwrap_err();
            assert!(matches!(error, Error::Address { .. }), "{bad}: {error}");
            assert!(error.to_string().contains(bad) && error.to_string().contains("http://127.0.0.1:7400"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_named_with_what_to_do() {
        // bound and dropped: nobody listens there now
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("http://127.0.0.1:{port}");
        let eager = Client::connect(&address).await.unwrap_err();
        let lazy = Client::connect_lazily(&address).unwrap().status().await.unwrap_err();
        for error in [eager, lazy] {
            assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
            assert_eq!(error.code(), Code::Unavailable);
            let message = error.to_string();
            assert!(message.contains(&address) && message.contains("is `llambo serve` running?"), "{message}");
            assert!(message.contains("refused"), "{message}");
        }
    }

    #[tokio::test]
    async fn draining_nothing_never_reaches_the_host() {
        let client = Client::connect_lazily("http://127.0.0.1:1").unwrap();
        assert_eq!(client.drain_nodes(Vec::new()).await.unwrap().draining, 0);
        assert_eq!(client.drain_type("").await.unwrap_err().code(), Code::InvalidArgument);
    }
}
