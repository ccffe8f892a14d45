//! Downloads from servers that cut, corrupt, throttle, redirect, lie and change their minds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod hub;
mod server;

use std::{fs, path::Path, time::Duration};

use llambo_catalog::{Builtin, Source, digest_of};
use llambo_download::{DownloadError, Downloaded, Event, Order, Patience, download};
use tempfile::TempDir;

use crate::server::{Asked, Length, Server, Told};

/// The file that everybody fetches.
fn model() -> &'static [u8] {
    Builtin::DemoSmall.bytes()
}

fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience {
        attempts: 4,
        first_wait: ms(1),
        longest_wait: ms(5),
        longest_asked: Duration::from_mins(1),
        stall: Duration::from_secs(20),
    }
}

fn order(url: &str, folder: &Path) -> Order {
    let source = Source::parse(url).unwrap();
    Order { source, sha256: None, hub: None, folder: Some(folder.into()) }
}

async fn fetch(order: &Order) -> (Result<Downloaded, DownloadError>, Vec<Event>) {
    let mut events = Vec::new();
    let done = download(order, &patience(), &mut |event| events.push(event)).await;
    events.retain(|event| !matches!(event, Event::Progress(_)));
    (done, events)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// All files below a folder, but locks.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found.retain(|name| Path::new(name).extension().is_none_or(|extension| extension != "lock"));
    found
}

#[tokio::test]
async fn a_download_goes_on_after_each_cut_and_fetches_no_byte_twice() {
    let server = Server::start(|asked: &Asked| Told::file(asked, model(), "a").cut_after(model().len() / 3 + 1)).await;
    let folder = folder();
    let order = order(&server.url("/m.gguf"), folder.path());
    let (done, events) = fetch(&order).await;
    assert_eq!(fs::read(done.unwrap().file.path()).unwrap(), model());
    let third = model().len() / 3 + 1;
    let asked = server.asked();
    assert_eq!(asked.iter().map(Asked::from).collect::<Vec<_>>(), [None, Some(third), Some(2 * third)]);
    assert_eq!(asked[1].headers["if-range"], "\"a\"");
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Retries { .. })).count(), 2, "{events:?}");
    assert_eq!(files(folder.path()), ["m.gguf"]);
    // it is there now: nobody is asked again
    fetch(&order).await.0.unwrap();
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_process_that_ended_left_what_the_next_one_goes_on_from() {
    let server = Server::start(|asked: &Asked| match asked.number {
        0 => Told { hangs: true, ..Told::file(asked, model(), "a").cut_after(10_000) },
        _ => Told::file(asked, model(), "a"),
    })
    .await;
    let folder = folder();
    let order = order(&server.url("/m.gguf"), folder.path());
    let there = tokio::sync::Notify::new();
    let mut tell = |event| {
        if matches!(event, Event::Progress(progress) if progress.done == 10_000) {
            there.notify_one();
        }
    };
    let patience = patience();
    tokio::select! {
        _ = download(&order, &patience, &mut tell) => panic!("it hangs"),
        () = there.notified() => {}
    }
    assert!(fetch(&order).await.0.is_ok());
    assert_eq!(server.asked()[1].from(), Some(10_000));
}

#[tokio::test]
async fn a_file_that_changed_begins_anew() {
    // the second version differs in its last byte only: a mixture of both would be the second one's length and pass as a model
    let mut other = model().to_vec();
    *other.last_mut().unwrap() ^= 1;
    for knows_if_range in [true, false] {
        let second = other.clone();
        let server = Server::start(move |asked: &Asked| {
            let mut asked = asked.clone();
            if !knows_if_range {
                asked.headers.remove("if-range");
            }
            match asked.number {
                0 => Told::file(&asked, model(), "a").cut_after(model().len() - 100),
                _ => Told::file(&asked, &second, "b"),
            }
        })
        .await;
        let folder = folder();
        let (done, events) = fetch(&order(&server.url("/m.gguf"), folder.path())).await;
        assert_eq!(done.unwrap().file.digest(), digest_of(&other));
        assert!(events.contains(&Event::BeginsAnew), "{events:?}");
        // nothing of the second version was skipped
        assert!(server.asked().last().unwrap().from().is_none() || knows_if_range, "{:?}", server.asked());
    }
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_the_whole_again() {
    let server = Server::start(|asked: &Asked| {
        let told = Told { status: 200, body: model().to_vec(), ..Told::default() };
        if asked.number < 2 { told.cut_after(5000) } else { told }
    })
    .await;
    let folder = folder();
    let (done, _) = fetch(&order(&server.url("/m.gguf"), folder.path())).await;
    assert_eq!(fs::read(done.unwrap().file.path()).unwrap(), model());
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_busy_server_is_waited_for_as_long_as_it_asks() {
    for status in [429, 503] {
        let server = Server::start(move |asked: &Asked| match asked.number {
            0 => Told::status(status).with("retry-after", 1),
            1 => Told::status(500),
            _ => Told::file(asked, model(), "a"),
        })
        .await;
        let folder = folder();
        let (done, events) = fetch(&order(&server.url("/m.gguf"), folder.path())).await;
        done.unwrap();
        let waits: Vec<_> =
            events.iter().filter_map(|e| if let Event::Retries { wait, .. } = e { Some(*wait) } else { None }).collect();
        assert_eq!(waits[0], Duration::from_secs(1));
        assert!(waits[1] < Duration::from_millis(10), "{waits:?}");
    }
    let server = Server::start(|_: &Asked| Told::status(429).with("retry-after", 86_400)).await;
    let folder = folder();
    let (done, _) = fetch(&order(&server.url("/m.gguf"), folder.path())).await;
    assert!(matches!(done, Err(DownloadError::Busy { wait, .. }) if wait.as_secs() == 86_400), "{done:?}");
}

#[tokio::test]
async fn refusals_say_what_to_do_and_are_not_repeated() {
    for (status, advice) in [(404, "name is right"), (401, "HF_TOKEN"), (403, "terms"), (400, "no file")] {
        let server = Server::start(move |_: &Asked| Told::status(status)).await;
        let folder = folder();
        let (done, _) = fetch(&order(&server.url("/m.gguf?token=secret"), folder.path())).await;
        let told = done.unwrap_err().to_string();
        assert!(told.contains(advice) && told.contains(&status.to_string()) && !told.contains("secret"), "{told}");
        assert_eq!(server.asked().len(), 1);
    }
    let server = Server::start(|_: &Asked| Told::status(500)).await;
    let folder = folder();
    let (done, _) = fetch(&order(&server.url("/m.gguf"), folder.path())).await;
    let told = done.unwrap_err().to_string();
    assert!(told.contains("4 attempts") && told.contains("500"), "{told}");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn what_is_no_model_is_told_before_it_is_fetched_and_leaves_nothing() {
    let page = b"<!doctype html><title>Sign in</title>".to_vec();
    let zip = b"PK\x03\x04 and so on".to_vec();
    let mut noise = model().to_vec();
    noise[24..64].fill(0xff);
    for (kind, body, told) in [
        ("text/html; charset=utf-8", page.clone(), "web page"),
        ("application/octet-stream", page, "web page"),
        ("application/octet-stream", zip, "instead of `GGUF`"),
        ("application/octet-stream", noise, "is no model"),
        ("application/octet-stream", model()[..model().len() / 2].to_vec(), "cut short"),
    ] {
        let server =
            Server::start(move |_: &Asked| Told { body: body.clone(), ..Told::status(200).with("content-type", kind) }).await;
        let folder = folder();
        let error = fetch(&order(&server.url("/m.gguf"), folder.path())).await.0.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
    }
}

#[tokio::test]
async fn sizes_that_lie_end_in_an_error() {
    // more is promised than comes
    let server =
        Server::start(|asked: &Asked| Told { length: Length::Lie(model().len() + 1000), ..Told::file(asked, model(), "a") })
            .await;
    let folder = folder();
    let error = fetch(&order(&server.url("/m.gguf"), folder.path())).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { .. }), "{error}");
    // no size at all is no lie
    let server = Server::start(|asked: &Asked| Told { length: Length::Nothing, ..Told::file(asked, model(), "a") }).await;
    let done = fetch(&order(&server.url("/m.gguf"), folder.path())).await.0;
    assert_eq!(fs::read(done.unwrap().file.path()).unwrap(), model());
}

#[tokio::test]
async fn a_size_beyond_the_disk_is_refused_before_a_byte_is_written() {
    let server =
        Server::start(|asked: &Asked| Told { length: Length::Lie(1 << 60), hangs: true, ..Told::file(asked, model(), "a") })
            .await;
    let folder = folder();
    let error = fetch(&order(&server.url("/m.gguf"), folder.path())).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::NoRoom { needed, .. } if needed > 1 << 59), "{error}");
    assert!(error.to_string().contains("XDG_DATA_HOME"), "{error}");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_damage_on_the_way_is_fetched_again() {
    let server = Server::start(|asked: &Asked| Told::file(asked, model(), "a")).await;
    let folder = folder();
    let wrong = Order { sha256: Some("0".repeat(64)), ..order(&server.url("/m.gguf"), folder.path()) };
    let error = fetch(&wrong).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::WrongDigest { .. }), "{error}");
    assert!(files(folder.path()).is_empty());
    let short = Order { sha256: Some("12".into()), ..wrong.clone() };
    assert!(matches!(fetch(&short).await.0, Err(DownloadError::BadDigest { .. })));

    // the first piece was damaged: the digest says so, and one more fetch of the whole mends it
    let server = Server::start(|asked: &Asked| {
        let told = Told::file(asked, model(), "a");
        if asked.number > 0 {
            return told;
        }
        let mut body = told.body.clone();
        let end = body.len();
        body[end - 2000] ^= 1;
        Told { body, ..told }.cut_after(model().len() - 1000)
    })
    .await;
    let right = Order {
        sha256: Some(format!("sha256:{}", digest_of(model()).to_uppercase())),
        ..order(&server.url("/m.gguf"), folder.path())
    };
    let (done, events) = fetch(&right).await;
    assert_eq!(fs::read(done.unwrap().file.path()).unwrap(), model());
    assert!(events.contains(&Event::BeginsAnew), "{events:?}");
}

#[tokio::test]
async fn redirects_are_followed_to_an_end() {
    let server = Server::start(|asked: &Asked| match asked.path.as_str() {
        "/m.gguf" => Told::status(302).with("location", "/deeper?x=1"),
        "/deeper?x=1" => Told::status(307).with("location", "/file"),
        "/round" => Told::status(302).with("location", "/round"),
        _ => Told::file(asked, model(), "a"),
    })
    .await;
    let folder = folder();
    assert!(fetch(&order(&server.url("/m.gguf"), folder.path())).await.0.is_ok());
    let error = fetch(&order(&server.url("/round"), folder.path())).await.0.unwrap_err();
    assert!(error.to_string().contains("redirect"), "{error}");
}

#[tokio::test]
async fn two_that_fetch_the_same_wait_for_each_other() {
    let server = Server::start(|asked: &Asked| Told::file(asked, model(), "a")).await;
    let folder = folder();
    let order = order(&server.url("/m.gguf"), folder.path());
    let all = [fetch(&order), fetch(&order), fetch(&order), fetch(&order)];
    let [a, b, c, d] = all;
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    for (done, _) in [a, b, c, d] {
        assert_eq!(done.unwrap().file.digest(), digest_of(model()));
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_asked_again() {
    let server = Server::start(|asked: &Asked| match asked.number {
        0 => Told { hangs: true, ..Told::file(asked, model(), "a").cut_after(10_000) },
        _ => Told::file(asked, model(), "a"),
    })
    .await;
    let folder = folder();
    let short = Patience { stall: Duration::from_millis(300), ..patience() };
    download(&order(&server.url("/m.gguf"), folder.path()), &short, &mut |_| ()).await.unwrap();
    assert_eq!(server.asked()[1].from(), Some(10_000));
}

#[tokio::test]
async fn nobody_there_is_told_after_some_attempts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.gguf", listener.local_addr().unwrap());
    drop(listener);
    let folder = folder();
    let error = fetch(&order(&url, folder.path())).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::GivenUp { attempts: 4, .. }), "{error}");
    let error = fetch(&order("http:///x", folder.path())).await.0.unwrap_err();
    assert!(matches!(error, DownloadError::BadUrl { .. } | DownloadError::GivenUp { .. }), "{error}");
}
