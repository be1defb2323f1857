use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

fn hosts() -> Vec<String> {
    vec!["*.aliyuncs.com".to_owned(), "videos.example.org".to_owned()]
}

fn limits() -> DownloadLimits {
    DownloadLimits { connect: Duration::from_secs(10), idle: Duration::from_secs(10), total: Duration::from_secs(30) }
}

fn link(url: &str) -> VideoLink {
    VideoLink::new(url.to_owned())
}

async fn fetch(downloader: &Downloader, url: &str) -> Result<Vec<u8>, DownloadError> {
    let pieces: Vec<Bytes> = downloader.fetch(&link(url)).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// Counts who connects, and answers nobody.
async fn trap(tasks: &mut JoinSet<()>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tasks.spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, connections)
}

/// 200 links that lead inside, or try to.
fn hostile(port: u16) -> Vec<String> {
    let mut urls = Vec::new();
    let inside = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "１２７.０.０.１",
    ];
    for host in inside {
        for scheme in ["http", "https"] {
            urls.push(format!("{scheme}://{host}/v.webm"));
            urls.push(format!("{scheme}://{host}:{port}/v.webm"));
        }
    }
    let names = [
        "aliyuncs.com",
        "evilaliyuncs.com",
        "a.aliyuncs.com.evil.example",
        "a.aliyuncs.com.",
        "aliyuncs.com.localhost",
        "a.aliyuncs.co",
        "a.aliyuncs.com%00.evil.example",
        "a.aliyuncs.com%2f.evil.example",
        "xn--aliyuncs-.com",
        "videos.example.org.",
        "x.videos.example.org",
        "videos.example.org.localhost",
        "notvideos.example.org",
        "a.aliyuncs。com.evil.example",
        ".aliyuncs.com",
        "a..aliyuncs.com.evil",
    ];
    for host in names {
        for scheme in ["http", "https"] {
            urls.push(format!("{scheme}://{host}/v.webm"));
            urls.push(format!("{scheme}://{host}:{port}/v.webm"));
        }
    }
    for host in ["a.aliyuncs.com", "inside.aliyuncs.com", "videos.example.org"] {
        urls.push(format!("http://{host}/v.webm"));
        urls.push(format!("http://{host}:443/v.webm"));
        for port in [port, 80, 22, 8080, 8443] {
            urls.push(format!("https://{host}:{port}/v.webm"));
        }
        for user in ["user@", "user:pass@", "a.aliyuncs.com@", ":x@"] {
            urls.push(format!("https://{user}{host}/v.webm"));
            urls.push(format!("https://{user}127.0.0.1:{port}/v.webm"));
        }
        urls.push(format!("https://127.0.0.1:{port}#@{host}/"));
        urls.push(format!("https://127.0.0.1:{port}?@{host}/"));
        urls.push(format!("https://127.0.0.1:{port}\\@{host}/"));
        urls.push(format!("https:\\\\127.0.0.1:{port}\\{host}"));
        urls.push(format!("//{host}/v.webm"));
    }
    for odd in [
        "",
        " ",
        "v.webm",
        "/v.webm",
        "https://",
        "https:///v.webm",
        "file:///etc/passwd",
        "ftp://a.aliyuncs.com/v",
        "gopher://127.0.0.1:70/",
        "data:video/webm;base64,AAAA",
        "javascript:alert(1)",
        "unix:/var/run/docker.sock",
        "https://[::1",
        "https://a b.aliyuncs.com/",
        "ws://a.aliyuncs.com/",
        "blob:https://a.aliyuncs.com/x",
    ] {
        urls.push(odd.to_owned());
    }
    urls
}

#[tokio::test]
async fn two_hundred_hostile_links_connect_nowhere() {
    let mut tasks = JoinSet::new();
    let (address, connections) = trap(&mut tasks).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let lookups = Arc::clone(&asked);
    // Whatever is asked for lies inside, whoever's name it is.
    let lookup: Lookup = Arc::new(move |_| {
        lookups.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { Ok(vec![address]) })
    });
    let downloader = Downloader::with_lookup(hosts(), None, limits(), lookup).unwrap();
    let urls = hostile(address.port());
    assert!(urls.len() >= 200, "{}", urls.len());
    for url in &urls {
        let error = fetch(&downloader, url).await.expect_err(url);
        assert!(matches!(error, DownloadError::Forbidden(_)), "{url}: {error}");
        assert!(!error.to_string().contains("127."), "{error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "they are refused before anybody is asked for their address");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_allowed_name_that_leads_inside_is_connected_to_nowhere_however_it_is_rebound() {
    let mut tasks = JoinSet::new();
    let (address, connections) = trap(&mut tasks).await;
    let inside = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "100.100.100.200"];
    let asked = Arc::new(AtomicUsize::new(0));
    let lookups = Arc::clone(&asked);
    // A first look would show nothing wrong; this name server says something else each time.
    let lookup: Lookup = Arc::new(move |_| {
        let n = lookups.fetch_add(1, Ordering::SeqCst);
        let ip = inside[n % inside.len()].parse().unwrap();
        Box::pin(async move { Ok(vec![SocketAddr::new(ip, address.port()), address]) })
    });
    let downloader = Downloader::with_lookup(hosts(), None, limits(), lookup).unwrap();
    for attempt in 0..20 {
        let error = fetch(&downloader, "https://a.aliyuncs.com/v.webm").await.unwrap_err();
        assert!(matches!(error, DownloadError::NoAddress), "{attempt}: {error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 20, "each connection goes to what was looked up for it, once");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let failing: Lookup = Arc::new(|_| Box::pin(async { Err(io::Error::other("no name server")) }));
    let downloader = Downloader::with_lookup(hosts(), None, limits(), failing).unwrap();
    let error = fetch(&downloader, "https://a.aliyuncs.com/v.webm").await.unwrap_err();
    assert!(error.is_fault_of_the_moment(), "{error}");
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
}

/// Answers each connection with `answer`, then closes it.
async fn serve(tasks: &mut JoinSet<()>, answer: Vec<u8>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            // The client may have hung up.
            let _ = stream.write_all(&answer).await;
        }
    });
    url
}

async fn answered(answer: &str) -> Result<Vec<u8>, DownloadError> {
    let mut tasks = JoinSet::new();
    let endpoint = serve(&mut tasks, answer.as_bytes().to_vec()).await;
    let downloader = Downloader::new(hosts(), Some(endpoint.clone()), limits()).unwrap();
    fetch(&downloader, endpoint.join("/v.webm").unwrap().as_str()).await
}

#[tokio::test]
async fn an_endpoint_that_is_called_by_http_may_hold_the_videos_and_nobody_beside_it() {
    let mut tasks = JoinSet::new();
    let (trap, connections) = trap(&mut tasks).await;
    let endpoint = serve(&mut tasks, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".to_vec()).await;
    let downloader = Downloader::new(hosts(), Some(endpoint.clone()), limits()).unwrap();
    assert_eq!(fetch(&downloader, endpoint.join("/v").unwrap().as_str()).await.unwrap(), b"abc");
    for url in [format!("http://{trap}/v"), format!("http://localhost:{}/v", endpoint.port().unwrap())] {
        assert!(matches!(fetch(&downloader, &url).await, Err(DownloadError::Forbidden(_))), "{url}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    // An endpoint of the internet allows nothing.
    let endpoint = Url::parse("https://127.0.0.1:1").unwrap();
    let downloader = Downloader::new(hosts(), Some(endpoint.clone()), limits()).unwrap();
    assert!(matches!(fetch(&downloader, endpoint.as_str()).await, Err(DownloadError::Forbidden(_))));
}

#[tokio::test]
async fn a_download_is_whole_or_an_error() {
    assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef").await.unwrap(), b"abc");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(answered(&format!("{chunked}3\r\nabc\r\n0\r\n\r\n")).await.unwrap(), b"abc");
    let error = |answer: String| async move { answered(&answer).await.unwrap_err() };
    for (case, answer) in [
        ("cut off", "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nabc".to_owned()),
        ("cut off between chunks", format!("{chunked}3\r\nabc\r\n")),
        ("cut off in a chunk", format!("{chunked}30\r\nabc")),
    ] {
        let error = error(answer).await;
        assert!(matches!(error, DownloadError::Broken(_)) && error.is_fault_of_the_moment(), "{case}: {error:?}");
    }
    let endless = error("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc".to_owned()).await;
    assert!(matches!(endless, DownloadError::Endless), "{endless:?}");
    let large = error(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LARGEST_VIDEO + 1)).await;
    assert!(matches!(large, DownloadError::TooLarge), "{large:?}");
    let nothing = error(String::new()).await;
    assert!(nothing.is_fault_of_the_moment(), "{nothing:?}");
}

#[tokio::test]
async fn the_status_says_whether_the_link_is_worth_another_attempt() {
    for (status, again) in [
        (403, false),
        (404, false),
        (410, false),
        (400, false),
        (301, false),
        (302, false),
        (206, false),
        (503, true),
        (500, true),
        (429, true),
        (408, true),
    ] {
        let location = "location: http://127.0.0.1:1/elsewhere\r\n";
        let error = answered(&format!("HTTP/1.1 {status} X\r\n{location}content-length: 0\r\n\r\n")).await.unwrap_err();
        assert_eq!(error.is_fault_of_the_moment(), again, "{status}: {error}");
        assert!(error.to_string().contains(&status.to_string()));
    }
}

#[tokio::test]
async fn a_download_that_takes_too_long_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\na").await;
            held.push(stream);
        }
    });
    let short = Duration::from_millis(50);
    for limits in [DownloadLimits { idle: short, ..limits() }, DownloadLimits { total: short, ..limits() }] {
        let downloader = Downloader::new(hosts(), Some(endpoint.clone()), limits).unwrap();
        let error = fetch(&downloader, endpoint.as_str()).await.unwrap_err();
        assert!(matches!(error, DownloadError::TooSlow), "{error:?}");
    }
}

#[test]
fn a_host_is_allowed_by_its_whole_name() {
    for (host, allowed, is) in [
        ("a.aliyuncs.com", "*.aliyuncs.com", true),
        ("b.a.aliyuncs.com", "*.aliyuncs.com", true),
        ("aliyuncs.com", "*.aliyuncs.com", false),
        (".aliyuncs.com", "*.aliyuncs.com", false),
        ("evilaliyuncs.com", "*.aliyuncs.com", false),
        ("a.aliyuncs.com.evil", "*.aliyuncs.com", false),
        ("a.example.org", "a.example.org", true),
        ("b.a.example.org", "a.example.org", false),
    ] {
        assert_eq!(is_allowed(host, allowed), is, "{host} {allowed}");
    }
}

#[test]
fn nothing_shows_a_link() {
    let link = link("https://a.aliyuncs.com/v.webm?Signature=CANARY");
    assert!(!format!("{link:?}").contains("CANARY"));
    let downloader = Downloader::new(vec![], None, limits()).unwrap();
    let error = downloader.check(&link).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("CANARY"));
}
