//! `GET /metrics` of the host's HTTP port.

use std::io::{self, Write};

use hyper::{Method, StatusCode};
use serde_json::json;

use super::http::{self, Port};
use crate::{
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right},
    },
};

/// One line of Prometheus text: `name{labels} value`.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// As written, without the braces.
    labels: &'a str,
    value: &'a str,
}

pub(crate) async fn metrics(port: &Port<'_>, unchanged: bool, json: bool) -> Result<u8, Failure> {
    let text = fetch(port).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if unchanged {
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

async fn fetch(port: &Port<'_>) -> Result<String, Failure> {
    let (status, body) = port.whole(http::bare(Method::GET, "/metrics")?).await?;
    let address = port.address();
    match status {
        StatusCode::OK => Ok(String::from_utf8_lossy(&body).into_owned()),
        StatusCode::UNAUTHORIZED => Err(port.refused(status, &body)),
        StatusCode::FORBIDDEN => {
            Err(Failure::refused(format!("`{address}/metrics` needs a token with the permission `observe`")))
        }
        status => Err(Failure::refused(format!("`{address}/metrics` answered {status}; is this a llambo host?"))),
    }
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
