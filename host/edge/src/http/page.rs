//! The page for people: `/` and what belongs to it, compiled in. Its sources are in `host/edge/page`, `cargo xtask page` makes `dist` of them.
//!
//! It is the same for everybody and tells nothing; what it shows it asks for with the token of whoever reads it.

use std::{fmt::Write as _, io::Write as _};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::failure::ApiError;

/// Nothing but what this host serves: no other's scripts, styles, pictures and frames, and no HTML made from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// Asked again each time, and answered by 304 as long as it is the same: a new version of the host is seen at once.
const CACHE: &str = "no-cache";

/// Paths, what they are, and the bytes.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("/", "text/html; charset=utf-8", include_bytes!("../../page/dist/index.html")),
    ("/page/page.js", "text/javascript; charset=utf-8", include_bytes!("../../page/dist/page.js")),
    ("/page/page.css", "text/css; charset=utf-8", include_bytes!("../../page/dist/page.css")),
    ("/page/icon.svg", "image/svg+xml", include_bytes!("../../page/dist/icon.svg")),
];

/// One file, ready to be sent.
#[derive(Clone)]
struct Served {
    kind: HeaderValue,
    /// Changes with the bytes, and with how they are sent.
    tags: [HeaderValue; 2],
    plain: Bytes,
    gzip: Bytes,
}

/// Whether the page is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageSwitch {
    On,
    Off,
}

pub(super) fn router(switch: PageSwitch) -> Router {
    FILES.iter().fold(Router::new(), |router, (path, kind, bytes)| match switch {
        PageSwitch::Off => router.route(path, get(off)),
        PageSwitch::On => {
            let served = Served::new(kind, bytes);
            router.route(path, get(async move |headers: HeaderMap| served.answer(&headers)))
        }
    })
}

async fn off() -> ApiError {
    let what =
        "this host serves no page, since `network.page` of its configuration is false; `/openapi.json` lists what it serves";
    ApiError::new(StatusCode::NOT_FOUND, "page_is_off", what)
}

// === impl Served ===

impl Served {
    fn new(kind: &'static str, bytes: &'static [u8]) -> Self {
        let digest = Sha256::digest(bytes).iter().take(12).fold(String::new(), |mut text, byte| {
            // a string takes whatever is written
            let _ = write!(text, "{byte:02x}");
            text
        });
        let tag = |form: &str| HeaderValue::try_from(format!("\"{digest}{form}\"")).expect("hexadecimal digits");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("a vector takes everything");
        Self {
            kind: HeaderValue::from_static(kind),
            tags: [tag(""), tag("-gzip")],
            plain: Bytes::from_static(bytes),
            gzip: gzip.into(),
        }
    }

    fn answer(&self, asked: &HeaderMap) -> Response<Body> {
        let is_gzip = takes_gzip(asked);
        let tag = &self.tags[usize::from(is_gzip)];
        let mut response = Response::new(Body::empty());
        if is_known(asked, &self.tags) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(if is_gzip { self.gzip.clone() } else { self.plain.clone() });
        }
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        headers.insert(header::ETAG, tag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether the client reads gzip. One that says how much it likes it by `q=0` does not.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let takes = |part: &str| {
        let (coding, quality) = part.split_once(';').unwrap_or((part, ""));
        let quality = quality.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        coding.trim().eq_ignore_ascii_case("gzip") && quality > 0.0
    };
    words(headers, &header::ACCEPT_ENCODING).any(takes)
}

/// Whether the client has one of these already.
fn is_known(headers: &HeaderMap, tags: &[HeaderValue]) -> bool {
    let is_it = |word: &str| word == "*" || tags.iter().any(|tag| tag.as_bytes() == word.trim_start_matches("W/").as_bytes());
    words(headers, &header::IF_NONE_MATCH).any(is_it)
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gzip_is_for_those_who_read_it() {
        for yes in ["gzip", "deflate, GZIP;q=0.5, br", "br , gzip ; q=1"] {
            assert!(takes_gzip(&asked(header::ACCEPT_ENCODING, yes)), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.0", "gzipped"] {
            assert!(!takes_gzip(&asked(header::ACCEPT_ENCODING, no)), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let served = Served::new("text/plain", b"text");
        let first = served.answer(&asked(header::ACCEPT_ENCODING, "gzip"));
        assert_eq!((first.status(), &first.headers()["content-encoding"]), (StatusCode::OK, &HeaderValue::from_static("gzip")));
        let tag = first.headers()[header::ETAG].clone();
        let mut again = asked(header::ACCEPT_ENCODING, "gzip");
        again.insert(header::IF_NONE_MATCH, format!("\"other\", W/{}", tag.to_str().unwrap()).parse().unwrap());
        assert_eq!(served.answer(&again).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(served.answer(&asked(header::IF_NONE_MATCH, "\"other\"")).status(), StatusCode::OK);
        assert_ne!(Served::new("text/plain", b"another").tags, served.tags);
    }

    #[test]
    fn the_page_is_small() {
        let n_bytes: usize = FILES.iter().map(|(_, kind, bytes)| Served::new(kind, bytes).gzip.len()).sum();
        assert!(n_bytes < 100 * 1024, "{n_bytes} bytes as gzip; what came in that is so large?");
    }
}
