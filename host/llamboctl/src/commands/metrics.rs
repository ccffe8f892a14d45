//! `GET /metrics` of the host's HTTP port.

use std::{
    io::{self, Write},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::{https, trust};
use crate::{
    args::{Metrics, trust::Trust},
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right},
    },
};

/// A host answers in milliseconds; whoever takes so long is none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of all metrics: some thousand lines are usual.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One line of Prometheus text: `name{labels} value`.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// As written, without the braces.
    labels: &'a str,
    value: &'a str,
}

pub(crate) async fn metrics(args: &Metrics, trust: &Trust, json: bool) -> Result<u8, Failure> {
    let text = fetch(&args.http, trust).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.export.is_some() {
        out.write_all(text.as_bytes())?;
    } else if json {
        let samples = text.lines().filter_map(sample);
        let value =
            samples.map(|s| json!({ "name": s.name, "labels": s.labels, "value": s.value.parse::<f64>().ok() })).collect();
        output::json(&mut out, &value)?;
    } else {
        let mut rows: Vec<_> =
            text.lines().filter_map(sample).map(|s| [s.name, s.labels, s.value].map(ToOwned::to_owned)).collect();
        // by name alone: the buckets of a histogram stay in their order
        rows.sort_by(|a, b| a[0].cmp(&b[0]));
        output::table(&mut out, [("NAME", Left), ("LABELS", Left), ("VALUE", Right)], &rows)?;
    }
    out.flush()?;
    Ok(OK)
}

async fn fetch(address: &str, trust: &Trust) -> Result<String, Failure> {
    let token = trust::token(trust)?;
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::unreachable(format!("cannot reach a host's HTTP port at `{address}`: {why}; is `llambo serve` running?"))
    };
    match timeout(TIMEOUT, get(address, trust, token.as_deref())).await {
        Err(_) => Err(unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
        Ok(Err(why)) => Err(unreachable(&why)),
        Ok(Ok((StatusCode::OK, text))) => Ok(text),
        Ok(Ok((StatusCode::UNAUTHORIZED, _))) => Err(Failure::refused(format!(
            "`{address}/metrics` is for those who have a token; give `--token-file` or LLAMBO_TOKEN"
        ))),
        Ok(Ok((StatusCode::FORBIDDEN, _))) => {
            Err(Failure::refused(format!("`{address}/metrics` needs a token with the permission `observe`")))
        }
        Ok(Ok((status, _))) => Err(Failure::refused(format!("`{address}/metrics` answered {status}; is this a llambo host?"))),
    }
}

/// Status and body of `/metrics`; the error is a sentence's end.
async fn get(address: &str, trust: &Trust, token: Option<&str>) -> Result<(StatusCode, String), Error> {
    let uri: Uri = address.parse()?;
    let host = uri.authority().ok_or("it names no host")?;
    let is_encrypted = uri.scheme_str() == Some("https");
    let name = host.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((name, host.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 }))).await?;
    let stream = if is_encrypted { https::over(stream, name, trust).await? } else { Box::new(stream) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get("/metrics").header(header::HOST, host.as_str()).body(Empty::<Bytes>::new())?;
    if let Some(token) = token {
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse()?);
    }
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        Ok::<_, Error>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // the connection has to be driven for the answer to come; that it ends is no news
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    answer.map_err(|error| match error.downcast_ref::<hyper::Error>() {
        // it spoke first and made no sense: before the request was sent, or after
        Some(cause) if cause.is_parse() || cause.is_canceled() => {
            "what answers there is no HTTP/1 server; the HTTP port of a host is 7480 and its gRPC port 7400, unless set otherwise"
                .into()
        }
        _ => error,
    })
}

/// `None` for comments and empty lines. A label's value may hold anything, braces and spaces too.
fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once("} ")?,
        None => ("", rest),
    };
    Some(Sample { name, labels, value: value.trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_from_comments() {
        assert_eq!(sample("# HELP a b"), None);
        assert_eq!(sample(""), None);
        assert_eq!(sample("up 1"), Some(Sample { name: "up", labels: "", value: "1" }));
        let labelled = sample(r#"a_total{code="} x",m="b c"} 2.5"#).unwrap();
        assert_eq!((labelled.name, labelled.labels, labelled.value), ("a_total", r#"code="} x",m="b c""#, "2.5"));
    }
}
