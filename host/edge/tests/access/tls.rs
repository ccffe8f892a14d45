//! Encryption of both ports, certificates of clients, and certificates that change.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use llambo_client::{Ask, Client, Code, Credentials, Error};
use llambo_edge::{EdgeError, Permission, Security, TenantAccess, TlsError, TlsSettings};
use rcgen::SanType;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

use crate::{
    certificates::{Authority, Signed},
    harness::{Running, for_tenants, get_over, settings, tenant, told, within},
    tokens::until,
};

/// A folder with the certificate of a host.
struct Files {
    folder: tempfile::TempDir,
    hosts: Authority,
}

impl Files {
    fn new() -> Self {
        let (folder, hosts) = (tempfile::tempdir().unwrap(), Authority::new("hosts"));
        hosts.sign_host().write(folder.path());
        Self { folder, hosts }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn tls(&self, clients: Option<&Authority>, require_client_certificate: bool) -> TlsSettings {
        let client_ca = clients.map(|clients| {
            fs::write(self.path().join("clients.pem"), &clients.pem).unwrap();
            self.path().join("clients.pem")
        });
        let (certificate, key) = (self.path().join("host.pem"), self.path().join("host.key"));
        TlsSettings { certificate, key, client_ca, require_client_certificate }
    }

    fn trusting(&self) -> Credentials {
        Credentials::default().ca(self.hosts.pem.clone().into_bytes())
    }
}

fn open(tls: TlsSettings) -> Security {
    Security { tls: Some(tls), ..Security::default() }
}

async fn ask(address: SocketAddr, credentials: &Credentials) -> Result<(), Error> {
    let client = within(Client::connect_with(&format!("https://localhost:{}", address.port()), credentials)).await?;
    within(client.infer(Ask::text("x").max_tokens(1))).await.map(drop)
}

/// A handshake with one version, offering these protocols.
async fn shake(
    address: SocketAddr,
    root: &str,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    within(TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream)).await
}

#[tokio::test]
async fn both_ports_are_encrypted_with_tls_1_2_and_1_3() {
    let files = Files::new();
    let host = Running::start(open(files.tls(None, false))).await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let grpc = shake(host.grpc, &files.hosts.pem, version, &["h2"]).await.unwrap();
        let (_, session) = grpc.get_ref();
        assert_eq!((session.protocol_version(), session.alpn_protocol()), (Some(expected), Some(&b"h2"[..])));
        let http = shake(host.http, &files.hosts.pem, version, &["http/1.1"]).await.unwrap();
        assert_eq!(http.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(get_over(http, "/livez", "").await.starts_with("HTTP/1.1 200 "));
    }
    ask(host.grpc, &files.trusting()).await.unwrap();
    let stranger = ask(host.grpc, &Credentials::default().ca(Authority::new("others").pem.into_bytes())).await.unwrap_err();
    assert!(matches!(stranger, Error::Unreachable { .. }), "{stranger:?}");
    host.stop().await;
}

#[tokio::test]
async fn who_speaks_plainly_to_an_encrypted_port_is_not_served() {
    let files = Files::new();
    let host = Running::start(open(files.tls(None, false))).await;
    let answer = host.get("/livez", "").await;
    assert!(!answer.contains("HTTP"), "{answer:?}");
    let plain = Client::connect_lazily(&format!("http://{}", host.grpc)).unwrap();
    let error = within(plain.models()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    // and the other way round
    let open_host = Running::start(Security::default()).await;
    assert!(ask(open_host.grpc, &files.trusting()).await.is_err());
    ask(host.grpc, &files.trusting()).await.unwrap();
    open_host.stop().await;
    host.stop().await;
}

#[tokio::test]
async fn a_client_certificate_says_which_tenant_asks() {
    let (files, clients) = (Files::new(), Authority::new("clients"));
    let known = |name: &str, certificate: &str, may: &[Permission]| TenantAccess {
        certificates: vec![certificate.into()],
        ..tenant(name, &format!("llambo_{name}"), may)
    };
    let tenants = vec![
        known("by-dns", "app.example.com", &[Permission::Infer]),
        known("by-uri", "spiffe://example.com/app", &[Permission::Infer]),
        known("by-name", "app-7", &[Permission::Observe]),
    ];
    let host = Running::start(Security { tls: Some(files.tls(Some(&clients), false)), ..for_tenants(tenants) }).await;
    let shown = |signed: Signed| files.trusting().identity(signed.certificate.into_bytes(), signed.key.into_bytes());
    let dns = shown(clients.sign("x", &[SanType::DnsName("app.example.com".try_into().unwrap())]));
    let uri = shown(clients.sign("x", &[SanType::URI("spiffe://example.com/app".try_into().unwrap())]));
    let name = shown(clients.sign("app-7", &[]));
    ask(host.grpc, &dns).await.unwrap();
    ask(host.grpc, &uri).await.unwrap();
    let error = ask(host.grpc, &name).await.unwrap_err();
    assert!(error.reason() == "NOT_PERMITTED" && error.to_string().contains("tenant `by-name`"), "{error}");
    // a token comes before a certificate
    ask(host.grpc, &name.clone().token("llambo_by-dns").unwrap()).await.unwrap();
    let stranger = ask(host.grpc, &shown(clients.sign("app-8", &[]))).await.unwrap_err();
    assert!(stranger.reason() == "UNAUTHENTICATED" && stranger.to_string().contains("client certificate"), "{stranger}");
    assert_eq!(ask(host.grpc, &files.trusting()).await.unwrap_err().reason(), "UNAUTHENTICATED");
    // signed by somebody else
    assert!(ask(host.grpc, &shown(Authority::new("clients").sign("app-7", &[]))).await.is_err());
    host.stop().await;
}

#[tokio::test]
async fn where_a_client_certificate_is_required_nobody_connects_without() {
    let (files, clients) = (Files::new(), Authority::new("clients"));
    let host = Running::start(open(files.tls(Some(&clients), true))).await;
    assert!(ask(host.grpc, &files.trusting()).await.is_err());
    let signed = clients.sign("anybody", &[]);
    ask(host.grpc, &files.trusting().identity(signed.certificate.into_bytes(), signed.key.into_bytes())).await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let files = Files::new();
    let host = Running::start(open(files.tls(None, false))).await;
    let address = format!("https://localhost:{}", host.grpc.port());
    let old = Client::connect_with(&address, &files.trusting()).await.unwrap();
    old.models().await.unwrap();

    // a key that does not belong to its certificate changes nothing
    let others = Authority::new("others");
    let new = others.sign_host();
    fs::write(files.path().join("host.key"), "nonsense").unwrap();
    let trusting_new = Credentials::default().ca(others.pem.clone().into_bytes());
    ask(host.grpc, &files.trusting()).await.unwrap();

    new.write(files.path());
    until(async || ask(host.grpc, &trusting_new).await.is_ok()).await;
    assert!(ask(host.grpc, &files.trusting()).await.is_err());
    old.models().await.unwrap();
    assert!(shake(host.http, &others.pem, &TLS13, &["http/1.1"]).await.is_ok());

    fs::remove_file(files.path().join("host.key")).unwrap();
    ask(host.grpc, &trusting_new).await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn a_host_with_certificates_that_cannot_be_used_does_not_start() {
    let files = Files::new();
    let bound = async |tls| llambo_edge::Bound::new(settings(open(tls))).await.map(drop).unwrap_err();
    let tls = files.tls(None, false);
    fs::write(files.path().join("host.key"), Authority::new("x").sign_host().key).unwrap();
    let error = bound(tls.clone()).await;
    assert!(matches!(&error, EdgeError::Tls(TlsError::Unfit { .. })), "{error}");
    fs::write(files.path().join("host.key"), "secret").unwrap();
    let error = bound(tls.clone()).await;
    assert!(matches!(&error, EdgeError::Tls(TlsError::Pem { what: "private key", .. })), "{error}");
    assert!(error.to_string().contains("network.tls.key") && !error.to_string().contains("secret"), "{error}");
    fs::remove_file(files.path().join("host.pem")).unwrap();
    let error = bound(tls).await;
    assert!(matches!(&error, EdgeError::Tls(TlsError::Read { .. })), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let files = Files::new();
    let mut security = open(files.tls(None, false));
    security.limits.header_timeout = std::time::Duration::from_millis(300);
    let host = Running::start(security).await;
    for port in [host.grpc, host.http] {
        let mut stream = TcpStream::connect(port).await.unwrap();
        // a record that says it is a handshake of 512 bytes, and no more of it
        stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
        told(stream).await;
    }
    host.stop().await;
}
