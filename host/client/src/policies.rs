//! Loading policies, and recording and replaying what was decided.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use llambo_proto::v1::{self, policies_client::PoliciesClient};

use crate::{Client, Error, credentials::Transport};

/// A policy to be loaded.
///
/// ```no_run
/// # async fn example(client: llambo_client::Client, wasm: Vec<u8>) -> Result<(), llambo_client::Error> {
/// use llambo_client::NewPolicy;
/// // it decides for a tenth of the requests, and then for all
/// client.load_policy(NewPolicy::new("balancer", "latency-aware", wasm).share(0.1)).await?;
/// client.promote_policy("balancer").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct NewPolicy {
    request: v1::LoadPolicyRequest,
}

/// The place of a policy among those of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyRole {
    /// It decides.
    #[default]
    Live,
    /// It is asked and decides nothing.
    Shadow,
    /// It decides for a share of the requests.
    Canary,
}

/// What decides in the place of what was recorded. It is not loaded, and changes nothing on the host.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ReplayWith {
    request: v1::ReplayWith,
}

/// Decisions and ends as they happen. Dropping it ends the recording.
pub type RouteStream = Pin<Box<dyn Stream<Item = Result<v1::RouteRecord, Error>> + Send>>;

// === impl NewPolicy ===

impl NewPolicy {
    /// A component that exports the interface of `kind`: `balancer`, `admission`, `classifier`, `scaler`, `fusion` or `token-hook`. The name
    /// is for people: a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`. It becomes the live policy unless a method below says otherwise.
    pub fn new(kind: &str, name: &str, wasm: Vec<u8>) -> Self {
        Self {
            request: v1::LoadPolicyRequest {
                kind: kind.to_owned(),
                name: name.to_owned(),
                wasm,
                ..v1::LoadPolicyRequest::default()
            },
        }
    }

    /// It is asked and decides nothing; what it would have decided is compared with what was.
    pub fn shadow(mut self) -> Self {
        self.request.shadow = true;
        self
    }

    /// It decides for this share of the requests, above 0 and below 1.
    pub fn share(mut self, share: f64) -> Self {
        self.request.share = share;
        self
    }

    /// What `host.parameters` answers to it; at most 64 KiB.
    pub fn parameters(mut self, text: impl Into<String>) -> Self {
        self.request.parameters = text.into();
        self
    }

    /// Computing time of a call, in microseconds; without it, as the host's configuration says.
    pub fn time_us(mut self, time_us: u32) -> Self {
        self.request.time_us = time_us;
        self
    }

    /// Memory of an instance; without it, as the host's configuration says.
    pub fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.request.memory_bytes = memory_bytes;
        self
    }
}

// === impl PolicyRole ===

impl PolicyRole {
    /// As the host spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        }
    }
}

// === impl ReplayWith ===

impl ReplayWith {
    /// A component of the kind `balancer`.
    pub fn policy(wasm: Vec<u8>) -> Self {
        Self::new(v1::replay_with::Balancer::Wasm(wasm))
    }

    /// A built-in strategy, such as `least-loaded`.
    pub fn strategy(name: &str) -> Self {
        Self::new(v1::replay_with::Balancer::Strategy(name.to_owned()))
    }

    fn new(balancer: v1::replay_with::Balancer) -> Self {
        Self { request: v1::ReplayWith { balancer: Some(balancer), ..v1::ReplayWith::default() } }
    }

    /// What `host.parameters` answers to it; at most 64 KiB.
    pub fn parameters(mut self, text: impl Into<String>) -> Self {
        self.request.parameters = text.into();
        self
    }

    /// Computing time of a call, in microseconds; without it, as the host's configuration says.
    pub fn time_us(mut self, time_us: u32) -> Self {
        self.request.time_us = time_us;
        self
    }

    /// Memory of an instance; without it, as the host's configuration says.
    pub fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.request.memory_bytes = memory_bytes;
        self
    }
}

// === impl Client ===

impl Client {
    /// Has a policy checked, tried and put into its place.
    pub async fn load_policy(&self, policy: NewPolicy) -> Result<v1::LoadPolicyResponse, Error> {
        self.done(self.policies_service().load_policy(policy.request).await)
    }

    /// What is loaded, by kind, and the kinds for which what is built in decides.
    pub async fn policies(&self) -> Result<v1::ListPoliciesResponse, Error> {
        self.done(self.policies_service().list_policies(v1::ListPoliciesRequest {}).await)
    }

    /// Makes the shadow or the canary of a kind its live policy.
    pub async fn promote_policy(&self, kind: &str) -> Result<v1::PromotePolicyResponse, Error> {
        self.done(self.policies_service().promote_policy(v1::PromotePolicyRequest { kind: kind.to_owned() }).await)
    }

    /// Puts the policy back that was live before the present one, or what is built in.
    pub async fn roll_back_policy(&self, kind: &str) -> Result<v1::RollBackPolicyResponse, Error> {
        self.done(self.policies_service().roll_back_policy(v1::RollBackPolicyRequest { kind: kind.to_owned() }).await)
    }

    /// Takes a policy out. What is built in decides then.
    pub async fn unload_policy(&self, kind: &str, role: PolicyRole) -> Result<v1::UnloadPolicyResponse, Error> {
        let request = v1::UnloadPolicyRequest { kind: kind.to_owned(), role: role.as_str().to_owned() };
        self.done(self.policies_service().unload_policy(request).await)
    }

    /// Lets a suspended policy decide again.
    pub async fn resume_policy(&self, kind: &str, role: PolicyRole) -> Result<v1::ResumePolicyResponse, Error> {
        let request = v1::ResumePolicyRequest { kind: kind.to_owned(), role: role.as_str().to_owned() };
        self.done(self.policies_service().resume_policy(request).await)
    }

    /// Every routing decision from now on, and how it ended. A caller that reads too slowly is told how many it missed.
    pub async fn record_routes(&self) -> Result<RouteStream, Error> {
        let records = self.done(self.policies_service().record_routes(v1::RecordRoutesRequest {}).await)?;
        let address = self.address().to_owned();
        Ok(records.map(move |record| record.map_err(|e| Error::of(&e, &address))).boxed())
    }

    /// What another balancer would have done with recorded decisions. The records are taken from the stream as fast as the host reads them, in the
    /// order in which they were recorded. Dropping the future ends the replay.
    ///
    /// ```no_run
    /// # async fn example(client: llambo_client::Client, trace: Vec<llambo_client::RouteRecord>) -> Result<(), llambo_client::Error> {
    /// use llambo_client::ReplayWith;
    /// let outcome = client.replay_routes(ReplayWith::strategy("least-loaded"), futures::stream::iter(trace)).await?;
    /// println!("{} of {} decisions differ", outcome.different, outcome.decisions);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replay_routes(
        &self,
        with: ReplayWith,
        records: impl Stream<Item = v1::RouteRecord> + Send + 'static,
    ) -> Result<v1::ReplayRoutesResponse, Error> {
        use v1::replay_routes_request::Part;
        let parts = stream::iter([Part::With(with.request)]).chain(records.map(Part::Record));
        let requests = parts.map(|part| v1::ReplayRoutesRequest { part: Some(part) });
        self.done(self.policies_service().replay_routes(requests).await)
    }

    fn policies_service(&self) -> PoliciesClient<Transport> {
        PoliciesClient::new(self.channel())
    }
}
