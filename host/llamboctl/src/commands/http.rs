//! Requests to a host's HTTP port.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Bytes, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::{https, trust};
use crate::{
    args::{HttpPort, trust::Trust},
    exit::Failure,
};

/// A host answers in milliseconds; whoever takes so long is none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one answer: a page of metrics or of tasks has some megabytes at most.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Where hosts speak gRPC and HTTP unless they are told otherwise.
const GRPC_PORT: u16 = 7400;
const PORT: u16 = 7480;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The way to a host's HTTP port, with what is shown there.
pub(crate) struct Port<'a> {
    address: String,
    trust: &'a Trust,
}

/// An answer whose body still comes. Dropping it closes the connection.
pub(crate) struct Answer {
    response: Response<Incoming>,
    _connection: JoinSet<()>,
}

// === impl Port ===

impl<'a> Port<'a> {
    /// The port that was named; otherwise the usual one beside `host`, if that is at its usual one too.
    ///
    /// # Errors
    /// `host` is at another port: who knows where its HTTP is, and whose the usual one is there.
    pub(crate) fn of(port: &HttpPort, host: &str, trust: &'a Trust) -> Result<Self, Failure> {
        if let Some(address) = &port.http {
            return Ok(Self { address: address.clone(), trust });
        }
        let uri: Option<Uri> = host.parse().ok();
        let beside = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.port_u16())));
        match beside {
            Some((scheme, name, None | Some(GRPC_PORT))) => Ok(Self { address: format!("{scheme}://{name}:{PORT}"), trust }),
            _ => Err(Failure::wrong_usage(format!(
                "this goes to the host's HTTP port, and `{host}` is not at the usual one for gRPC, {GRPC_PORT}; name it by `--http` or LLAMBO_HTTP"
            ))),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A whole answer, whatever its status.
    pub(crate) async fn whole(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let token = trust::token(self.trust)?;
        let whole = async {
            let answer = self.open(request, token).await?;
            let status = answer.response.status();
            let body = Limited::new(answer.response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, Error>((status, body))
        };
        match timeout(TIMEOUT, whole).await {
            Ok(answer) => answer.map_err(|why| self.unreachable(&why)),
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    /// JSON of an answer that is none of failure.
    pub(crate) async fn json(&self, request: Request<Full<Bytes>>) -> Result<Value, Failure> {
        let (status, body) = self.whole(request).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.strange(status))
    }

    /// An answer whose body is read as it comes; one of failure is an error.
    pub(crate) async fn stream(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let answer = timeout(TIMEOUT, self.open(request, trust::token(self.trust)?)).await;
        let answer = answer.map_err(|_| self.unreachable(&format!("no answer within {} s", TIMEOUT.as_secs())))?;
        let answer = answer.map_err(|why| self.unreachable(&why))?;
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.response.into_body(), MAX_ANSWER).collect().await;
        Err(self.refused(status, &body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
    }

    async fn open(&self, mut request: Request<Full<Bytes>>, token: Option<String>) -> Result<Answer, Error> {
        let uri: Uri = self.address.parse()?;
        let host = uri.authority().ok_or("it names no host")?;
        let is_encrypted = uri.scheme_str() == Some("https");
        let name = host.host().trim_matches(['[', ']']);
        let stream = TcpStream::connect((name, host.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }))).await?;
        let stream = if is_encrypted { https::over(stream, name, self.trust).await? } else { Box::new(stream) };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, host.as_str().parse()?);
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse()?);
        }
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            // that it ends is no news: whoever reads sees it
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| -> Error {
            // it spoke first and made no sense: before the request was sent, or after
            if error.is_parse() || error.is_canceled() {
                "what answers there is no HTTP/1 server; the HTTP port of a host is 7480 and its gRPC port 7400, unless set otherwise"
                    .into()
            } else {
                error.into()
            }
        })?;
        Ok(Answer { response, _connection: driving })
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
        let address = &self.address;
        Failure::unreachable(format!("cannot reach a host's HTTP port at `{address}`: {why}; is `llambo serve` running?"))
    }

    fn strange(&self, status: StatusCode) -> Failure {
        Failure::refused(format!("`{}` answered {status}; is this a llambo host?", self.address))
    }

    /// What the host says is wrong, in the form of `/v2`.
    pub(crate) fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        match status {
            StatusCode::UNAUTHORIZED => {
                let what = if self.trust.token.is_some() || self.trust.token_file.is_some() {
                    format!("`{}` does not know this token, or it was revoked", self.address)
                } else {
                    format!("`{}` is for those who have a token; give `--token-file` or LLAMBO_TOKEN", self.address)
                };
                return Failure::because("UNAUTHENTICATED", what);
            }
            StatusCode::FORBIDDEN => {
                let what = format!("`{}` refuses this token; its tenant lacks the permission", self.address);
                return Failure::because("NOT_PERMITTED", what);
            }
            _ => {}
        }
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        match (told["error"]["code"].as_str(), told["error"]["message"].as_str()) {
            (Some(code), Some(message)) => Failure::because(&code.to_ascii_uppercase(), message),
            _ => self.strange(status),
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// More of the body; `None` at its end.
    pub(crate) async fn more(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A request without a body.
pub(crate) fn bare(method: Method, path: &str) -> Result<Request<Full<Bytes>>, Failure> {
    made(Request::builder().method(method).uri(path), Full::default())
}

/// A request with JSON in it.
pub(crate) fn with_json(path: &str, body: &Value) -> Result<Request<Full<Bytes>>, Failure> {
    let builder = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    made(builder, Full::from(body.to_string()))
}

fn made(builder: hyper::http::request::Builder, body: Full<Bytes>) -> Result<Request<Full<Bytes>>, Failure> {
    builder.body(body).map_err(|e| Failure::bad_input(format!("this cannot be asked for: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_beside_the_one_for_grpc() {
        let trust = Trust::default();
        let of = |http: Option<&str>, host: &str| {
            let port = HttpPort { http: http.map(ToOwned::to_owned) };
            Port::of(&port, host, &trust).map(|port| port.address).map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(of(None, "http://127.0.0.1:7400").unwrap(), "http://127.0.0.1:7480");
        assert_eq!(of(None, "https://far.example").unwrap(), "https://far.example:7480");
        assert_eq!(of(None, "http://[::1]:7400").unwrap(), "http://[::1]:7480");
        assert_eq!(of(Some("http://h:1"), "https://far.example:99").unwrap(), "http://h:1");
        // another host may be at 7480 there
        assert!(of(None, "http://127.0.0.1:7500").unwrap_err().contains("name it by `--http`"));
    }

    #[test]
    fn what_the_host_says_is_passed_on() {
        let trust = Trust::default();
        let port = Port { address: "http://h:1".into(), trust: &trust };
        let told = port.refused(StatusCode::NOT_FOUND, br#"{"error":{"code":"unknown_task","message":"no task `x`"}}"#);
        assert_eq!(told, Failure::because("UNKNOWN_TASK", "no task `x`"));
        let strange = port.refused(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(format!("{strange:?}").contains("is this a llambo host?"), "{strange:?}");
    }
}
