use metrics_exporter_prometheus::PrometheusBuilder;

use crate::harness::{Running, settings};

const FILES: [&str; 4] = ["/", "/page/page.js", "/page/page.css", "/page/icon.svg"];

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere_and_make_no_html_of_text() {
    let host = Running::start_fake().await;
    for path in FILES {
        let file = host.send("GET", path, "", "").await;
        assert_eq!(file.status, 200, "{path}");
        let policy = &file.headers["content-security-policy"];
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(file.headers["x-content-type-options"], "nosniff");
        assert_eq!(file.headers["referrer-policy"], "no-referrer");
        assert_eq!(file.headers["cache-control"], "no-cache");
    }
    let page = host.send("GET", "/", "", "").await;
    assert!(page.headers["content-type"].starts_with("text/html"), "{:?}", page.headers);
    let foreign = page.body.split(['"', '\'']).find(|word| word.starts_with("http") || word.starts_with("//"));
    assert_eq!(foreign, None, "the page works offline");
    // what it names is there
    for path in page.body.split('"').filter(|word| word.starts_with("/page/")) {
        assert!(FILES.contains(&path), "{path}");
    }
    host.stop().await;
}

#[tokio::test]
async fn the_page_is_sent_once_and_small() {
    let host = Running::start_fake().await;
    for path in FILES {
        // a byte of gzip is no text: the head alone is looked at
        let first = host.send("HEAD", path, "Accept-Encoding: br, gzip\r\n", "").await;
        assert_eq!((first.status, first.headers["content-encoding"].as_str()), (200, "gzip"), "{path}");
        let tag = &first.headers["etag"];
        let again = host.send("GET", path, &format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n"), "").await;
        assert_eq!((again.status, again.body.as_str(), &again.headers["etag"]), (304, "", tag), "{path}");
        let plain = host.send("GET", path, "If-None-Match: \"another\"\r\n", "").await;
        assert!(plain.status == 200 && !plain.headers.contains_key("content-encoding"), "{path}");
        assert_ne!(plain.headers["etag"], *tag, "{path}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_host_without_a_page_says_so() {
    let without = llambo_edge::Settings { page: false, ..settings() };
    let host = Running::start_as(without, &[("fake", 1)], PrometheusBuilder::new().build_recorder().handle()).await;
    for path in FILES {
        let refused = host.send("GET", path, "", "").await;
        assert_eq!((refused.status, &refused.error()["code"]), (404, &"page_is_off".into()), "{path}");
        assert!(refused.error()["message"].as_str().unwrap().contains("`network.page`"), "{}", refused.body);
    }
    assert_eq!(host.send("GET", "/cluster/status", "", "").await.status, 200);
    host.stop().await;
}
