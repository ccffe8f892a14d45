//! Repositories of the hub, at a server that speaks as the hub does.

use std::{fs, os::unix::fs::symlink, path::Path};

use llambo_catalog::{Hub, Source, digest_of};
use llambo_download::{DownloadError, Event, Order};

use crate::{
    fetch, files, folder, model,
    server::{Asked, Server, Told},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub with one repository, whose files lie at another host's address.
async fn start(change: impl Fn(&Asked, Told) -> Told + Send + Sync + 'static) -> Server {
    Server::start(move |asked: &Asked| {
        let digest = digest_of(model());
        let told = match (asked.method.as_str(), asked.path.as_str()) {
            (_, "/api/models/o/r-GGUF/revision/main") => Told {
                body: format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"README.md"}},{{"rfilename":"m-Q8_0.gguf"}}]}}"#)
                    .into(),
                ..Told::status(200).with("content-type", "application/json")
            },
            (_, path) if path.ends_with("/resolve/0123456789abcdef0123456789abcdef01234567/m-Q8_0.gguf") => Told::status(302)
                .with("location", format!("http://{}/cdn/1", asked.headers["host"]))
                .with("x-repo-commit", COMMIT)
                .with("x-linked-etag", format!("\"{digest}\""))
                .with("x-linked-size", model().len()),
            (_, "/cdn/1") => Told::file(asked, model(), "another-name"),
            _ => Told::status(404),
        };
        change(asked, told)
    })
    .await
}

fn order(server: &Server, cache: &Path, text: &str) -> Order {
    let hub = Hub { cache: cache.into(), endpoint: server.url(""), token: Some("hf_secret".into()), is_offline: false };
    Order { source: Source::parse(text).unwrap(), sha256: None, hub: Some(hub), folder: None }
}

#[tokio::test]
async fn a_repository_lands_where_other_tools_look_for_it() {
    let server = start(|_, told| told).await;
    let folder = folder();
    let order = order(&server, folder.path(), "hf:o/r-GGUF");
    let done = fetch(&order).await.0.unwrap();
    assert_eq!(done.source, "hf:o/r-GGUF:m-Q8_0.gguf");
    let repository = folder.path().join("models--o--r-GGUF");
    assert_eq!(done.file.path(), repository.join("snapshots").join(COMMIT).join("m-Q8_0.gguf"));
    let target = fs::read_link(done.file.path()).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(digest_of(model())));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(done.file.path()).unwrap(), model());
    // the token goes to the hub; the address it leads to has the same host here, and is shown the token as well
    assert_eq!(server.asked()[0].headers["authorization"], "Bearer hf_secret");
    // a second time only the hub is asked, and nothing is fetched
    let n_asked = server.asked().len();
    fetch(&order).await.0.unwrap();
    assert!(server.asked()[n_asked..].iter().all(|asked| asked.path != "/cdn/1"));
}

#[tokio::test]
async fn the_token_goes_to_no_other_host() {
    let other = Server::start(|asked: &Asked| Told::file(asked, model(), "x")).await;
    // another name of this machine is another host
    let elsewhere = format!("http://localhost:{}/cdn/1", other.addr.port());
    let server = start(move |asked, told| {
        if asked.path.contains("/resolve/") {
            Told { headers: told.headers.into_iter().filter(|(name, _)| name != "location").collect(), ..Told::status(302) }
                .with("location", &elsewhere)
        } else {
            told
        }
    })
    .await;
    let folder = folder();
    fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.unwrap();
    assert_eq!(other.asked().len(), 1);
    assert!(!other.asked()[0].headers.contains_key("authorization"), "{:?}", other.asked());
}

#[tokio::test]
async fn what_other_tools_left_is_found_and_gone_on_from() {
    let server = start(|_, told| told).await;
    let folder = folder();
    let repository = folder.path().join("models--o--r-GGUF");
    let blob = repository.join("blobs").join(digest_of(model()));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    // half a file of the hub's own client
    fs::write(blob.with_extension("incomplete"), &model()[..50_000]).unwrap();
    let order = order(&server, folder.path(), "hf:o/r-GGUF:q8_0");
    fetch(&order).await.0.unwrap();
    let asked = server.asked();
    assert_eq!(asked.last().unwrap().from(), Some(50_000), "{asked:?}");
    // a whole one, without a connection
    fs::remove_dir_all(repository.join("snapshots")).unwrap();
    fs::create_dir_all(repository.join("snapshots").join(COMMIT)).unwrap();
    symlink(&blob, repository.join("snapshots").join(COMMIT).join("m-Q8_0.gguf")).unwrap();
    let mut offline = order.clone();
    offline.hub.as_mut().unwrap().is_offline = true;
    assert_eq!(fetch(&offline).await.0.unwrap().file.digest(), digest_of(model()));
    offline.source = Source::parse("hf:o/other").unwrap();
    assert!(matches!(fetch(&offline).await.0, Err(DownloadError::Offline(_))));
}

#[tokio::test]
async fn damage_is_found_by_the_digest_that_the_hub_names() {
    let server = start(|asked, mut told| {
        if asked.path == "/cdn/1" {
            let end = told.body.len();
            told.body[end - 1] ^= 1;
        }
        told
    })
    .await;
    let folder = folder();
    let error = fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::WrongDigest { .. }), "{error}");
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[tokio::test]
async fn a_hub_that_lies_about_a_size_is_not_believed() {
    let with_size = |size: usize| {
        move |asked: &Asked, mut told: Told| {
            if asked.path.contains("/resolve/") {
                told.headers.retain(|(name, _)| name != "x-linked-size");
                told = told.with("x-linked-size", size);
            }
            told
        }
    };
    let server = start(with_size(model().len() - 1000)).await;
    let folder = folder();
    let error = fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::TooLong { .. }), "{error}");
    // one that promises too much sent the whole file all the same: the digest knows
    let server = start(with_size(model().len() + 1000)).await;
    assert!(fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.is_ok());
}

#[tokio::test]
async fn what_the_hub_refuses_is_explained() {
    let folder = folder();
    for (status, code, told) in [
        (404, "RepoNotFound", "not there, or is private"),
        (401, "", "HF_TOKEN"),
        (403, "GatedRepo", "accept its terms"),
        (404, "RevisionNotFound", "no revision `main`"),
    ] {
        let server = start(move |_, _| Told::status(status).with("x-error-code", code)).await;
        let error = fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let server = start(|_, _| Told { body: b"<html>".to_vec(), ..Told::status(200) }).await;
    let error = fetch(&order(&server, folder.path(), "hf:o/r-GGUF")).await.0.unwrap_err().to_string();
    assert!(error.contains("HF_ENDPOINT"), "{error}");
    let server = start(|asked, told| if asked.number == 0 { Told::status(429).with("retry-after", 0) } else { told }).await;
    let (done, events) = fetch(&order(&server, folder.path(), "hf:o/r-GGUF:Q8_0")).await;
    assert!(done.is_ok() && matches!(events[0], Event::Retries { .. }), "{events:?}");
    let error = fetch(&order(&server, folder.path(), "hf:o/r-GGUF:Q2_K")).await.0.unwrap_err().to_string();
    assert!(error.contains("`m-Q8_0.gguf`"), "{error}");
}
