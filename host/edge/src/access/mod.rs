//! Who asks, and what they may.
//!
//! A request shows a bearer token or comes over a connection with a client certificate; `tokens` knows whose that is, `table` says what
//! a method needs, and `layer` stands in front of both ports and puts the [`Caller`](crate::caller::Caller) into the request. Which
//! models and types a tenant may have is asked where a request names them: by the door.

mod layer;
mod rights;
mod table;
mod tokens;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use llambo_inference::{ModelName, TenantName, TypeName};
use tonic::codegen::http;

pub(crate) use self::{
    layer::{AccessLayer, describe as describe_metrics, refused_grpc, refused_http},
    rights::Rights,
    table::Protocol,
};
pub use self::{
    rights::Permission,
    tokens::{TokenHash, TokensError, read_tokens},
};
use self::{table::Need, tokens::Book};
use crate::{caller::Caller, listen::Peer};

/// Who may send requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessSettings {
    /// Whether a request must show whose it is. Otherwise those that show nothing may do everything.
    pub required: bool,
    /// Whether everybody may see `/metrics`.
    pub open_metrics: bool,
    /// Whoever can be told from others.
    pub tenants: Vec<TenantAccess>,
}

/// How a tenant is known, and what it may do.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantAccess {
    /// Whose work its requests are.
    pub name: TenantName,
    /// Its weight among tenants.
    pub weight: f64,
    /// Of its tokens.
    pub tokens: Vec<TokenHash>,
    /// A file with more of them, one a line; read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// Names in client certificates that are its own.
    pub certificates: Vec<String>,
    /// What it may do.
    pub may: Vec<Permission>,
    /// Models that it may ask; `None`: all.
    pub models: Option<Vec<ModelName>>,
    /// Types that may serve it; `None`: all.
    pub types: Option<Vec<TypeName>>,
}

/// Everything that decides whether a request is let in.
pub(crate) struct Access {
    settings: AccessSettings,
    /// As requests carry them, in the order of the tenants.
    callers: Vec<Caller>,
    /// Replaced as a whole when a file with tokens changed.
    book: RwLock<Arc<Book>>,
}

/// Why a request is not let in. Its words never hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "this host is for those who have a token; send `authorization: Bearer TOKEN` (llamboctl: --token-file or LLAMBO_TOKEN)"
    )]
    Nothing,
    #[error("the `authorization` header is not `Bearer TOKEN`; send it in that form")]
    Malformed,
    #[error("the token is not one of this host's, or was revoked; ask its operator for another one")]
    Unknown,
    #[error(
        "no tenant of this host has a name of the client certificate; add one to `tenants.NAME.certificates`, or send a token"
    )]
    Stranger,
    #[error("tenant `{tenant}` may not do this: it needs {needs}; the operator grants it with `tenants.{tenant}.may`")]
    NotPermitted { tenant: TenantName, needs: String },
}

impl TenantAccess {
    /// Whether nothing could tell its requests from those of others.
    fn shows_nothing(&self) -> bool {
        self.tokens.is_empty() && self.tokens_file.is_none() && self.certificates.is_empty()
    }
}

// === impl Access ===

impl Access {
    /// Reads the files with tokens. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be read or is wrong.
    pub(crate) fn new(settings: AccessSettings) -> Result<Self, TokensError> {
        let callers = settings.tenants.iter().map(Caller::from).collect();
        let book = RwLock::new(Arc::new(Book::read(&settings.tenants)?));
        Ok(Self { settings, callers, book })
    }

    /// Files with tokens.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.settings.tenants.iter().filter_map(|tenant| tenant.tokens_file.clone()).collect()
    }

    /// Reads the files again; of a tenant whose file is wrong, everything stays as it was. Answers how many tokens there are, and what is wrong. Blocks.
    pub(crate) fn reload(&self) -> (usize, Vec<TokensError>) {
        let before = Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner));
        let (book, wrong) = before.read_again(&self.settings.tenants);
        let n_tokens = book.len();
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
        (n_tokens, wrong)
    }

    /// Whose request it is, and that they may send it.
    pub(crate) fn admit<B>(&self, request: &http::Request<B>, protocol: Protocol) -> Result<Caller, Refusal> {
        let path = request.uri().path();
        let need = match protocol.need(path) {
            Need::Observe if self.settings.open_metrics && protocol == Protocol::Http && path == "/metrics" => Need::Nothing,
            need => need,
        };
        let identified = self.identify(request);
        if need == Need::Nothing {
            // a probe with an old token is a probe
            return Ok(identified.ok().flatten().unwrap_or_default());
        }
        let identified = match identified {
            // where nobody has a token, what somebody shows is not asked for: OpenAI's clients always show a key
            Err(_) if !self.settings.required && self.settings.tenants.iter().all(TenantAccess::shows_nothing) => None,
            identified => identified?,
        };
        let caller = match identified {
            Some(caller) => caller,
            None if self.settings.required => return Err(Refusal::Nothing),
            None => return Ok(Caller::default()),
        };
        if caller.rights.meet(need) {
            Ok(caller)
        } else {
            Err(Refusal::NotPermitted { tenant: caller.tenant, needs: need.to_string() })
        }
    }

    /// `None`: the request shows nothing. A token comes before the certificate of its connection.
    fn identify<B>(&self, request: &http::Request<B>) -> Result<Option<Caller>, Refusal> {
        let caller = |tenant: usize| self.callers.get(tenant).cloned();
        if let Some(value) = request.headers().get(http::header::AUTHORIZATION) {
            let token = value.as_bytes();
            let scheme = token.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
            let token = scheme.and(token.get(7..)).map(<[u8]>::trim_ascii).filter(|token| !token.is_empty());
            let token = token.ok_or(Refusal::Malformed)?;
            let book = Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner));
            return book.owner(token).and_then(caller).ok_or(Refusal::Unknown).map(Some);
        }
        let names = request.extensions().get::<Peer>().map_or(&[][..], |peer| &peer.names);
        if names.is_empty() {
            return Ok(None);
        }
        let has_one = |tenant: &TenantAccess| tenant.certificates.iter().any(|name| names.contains(name));
        match self.settings.tenants.iter().position(has_one).and_then(caller) {
            Some(caller) => Ok(Some(caller)),
            None if self.settings.required => Err(Refusal::Stranger),
            None => Ok(None),
        }
    }
}

// === impl Caller ===

impl From<&TenantAccess> for Caller {
    fn from(tenant: &TenantAccess) -> Self {
        let rights = Rights::new(&tenant.may, tenant.models.as_deref(), tenant.types.as_deref());
        Self { tenant: tenant.name.clone(), weight: tenant.weight, rights: Arc::new(rights), trace: None }
    }
}

// === impl Refusal ===

impl Refusal {
    /// The stable upper-case name for clients.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted { .. } => "NOT_PERMITTED",
            _ => "UNAUTHENTICATED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(required: bool) -> Access {
        let tenant = |name: &str, token: &str, may: &[Permission]| TenantAccess {
            name: name.into(),
            weight: 2.0,
            tokens: vec![TokenHash::of(token.as_bytes())],
            tokens_file: None,
            certificates: vec![format!("{name}.example.com")],
            may: may.to_vec(),
            models: None,
            types: None,
        };
        let tenants = vec![tenant("acme", "llambo_a", &[Permission::Infer]), tenant("watch", "llambo_w", &[Permission::Observe])];
        Access::new(AccessSettings { required, open_metrics: false, tenants }).unwrap()
    }

    fn request(path: &str, authorization: Option<&str>, names: &[&str]) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        let names = names.iter().map(ToString::to_string).collect();
        request.extensions_mut().insert(Peer { names });
        request
    }

    fn admit(path: &str, authorization: Option<&str>, names: &[&str]) -> Result<String, Refusal> {
        access(true).admit(&request(path, authorization, names), Protocol::Http).map(|caller| caller.tenant.to_string())
    }

    #[test]
    fn a_request_is_its_tokens_or_its_certificates() {
        assert_eq!(admit("/v1/models", Some("Bearer llambo_a"), &[]), Ok("acme".into()));
        assert_eq!(admit("/v1/models", Some("bearer  llambo_a "), &["watch.example.com"]), Ok("acme".into()));
        assert_eq!(admit("/v1/models", None, &["x", "acme.example.com"]), Ok("acme".into()));
        assert_eq!(admit("/v1/models", None, &[]), Err(Refusal::Nothing));
        assert_eq!(admit("/v1/models", None, &["example.com"]), Err(Refusal::Stranger));
        assert_eq!(admit("/v1/models", Some("Bearer llambo_b"), &["acme.example.com"]), Err(Refusal::Unknown));
        for bad in ["llambo_a", "Basic llambo_a", "Bearer", "Bearer  ", ""] {
            assert_eq!(admit("/v1/models", Some(bad), &[]), Err(Refusal::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_tenant_does_what_it_may() {
        let refused = admit("/v1/models", Some("Bearer llambo_w"), &[]).unwrap_err();
        assert_eq!(refused.reason(), "NOT_PERMITTED");
        assert!(refused.to_string().contains("tenant `watch` may not do this: it needs `infer`"), "{refused}");
        assert_eq!(admit("/metrics", Some("Bearer llambo_w"), &[]), Ok("watch".into()));
        assert_eq!(admit("/metrics", None, &[]), Err(Refusal::Nothing));
        assert_eq!(admit("/livez", None, &[]), Ok("default".into()));
        assert_eq!(admit("/livez", Some("Bearer old"), &[]), Ok("default".into()));
        // whatever there is not yet is not for strangers
        assert_eq!(admit("/nothing", None, &[]), Err(Refusal::Nothing));
        assert_eq!(admit("/nothing", Some("Bearer llambo_w"), &[]), Ok("watch".into()));
    }

    #[test]
    fn a_slip_in_a_file_with_tokens_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        std::fs::write(&path, hash).unwrap();
        let mut settings = access(true).settings;
        settings.tenants[0].tokens_file = Some(path.clone());
        let access = Access::new(settings).unwrap();
        let shows = |token: &str| access.admit(&request("/v1/models", Some(&format!("Bearer {token}")), &[]), Protocol::Http);
        std::fs::write(&path, "oops").unwrap();
        assert!(matches!(access.reload(), (3, wrong) if matches!(wrong[..], [TokensError::Line { line: 1, .. }])));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(access.reload(), (3, wrong) if matches!(wrong[..], [TokensError::Read { .. }])));
        assert!(shows("llambo_a").is_ok());
        std::fs::write(&path, "# none\n").unwrap();
        assert!(matches!(access.reload(), (2, wrong) if wrong.is_empty()));
    }

    #[test]
    fn one_tenants_slip_keeps_no_token_of_another_alive() {
        let folder = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
        let line = |token: &str| {
            let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), token)).into();
            digest.iter().fold("sha256:".to_owned(), |line, byte| format!("{line}{byte:02x}"))
        };
        std::fs::write(&ours, line("llambo_ours")).unwrap();
        std::fs::write(&theirs, line("llambo_theirs")).unwrap();
        let mut settings = access(true).settings;
        for (tenant, path) in settings.tenants.iter_mut().zip([&ours, &theirs]) {
            (tenant.tokens, tenant.tokens_file) = (Vec::new(), Some(path.clone()));
        }
        let access = Access::new(settings).unwrap();
        let shows = |token: &str| {
            access.admit(&request("/livez", None, &[]), Protocol::Http).is_ok()
                && access.identify(&request("/v1/models", Some(&format!("Bearer {token}")), &[])).is_ok()
        };
        assert!(shows("llambo_ours") && shows("llambo_theirs"));
        // theirs is broken, and ours is revoked
        std::fs::write(&theirs, "oops").unwrap();
        std::fs::write(&ours, "").unwrap();
        assert_eq!(access.reload().1.len(), 1);
        assert!(!shows("llambo_ours") && shows("llambo_theirs"));
        // whoever has another's token takes it from both
        std::fs::write(&ours, format!("{}\n{}", line("llambo_ours"), line("llambo_theirs"))).unwrap();
        std::fs::write(&theirs, line("llambo_theirs")).unwrap();
        assert!(matches!(access.reload().1[..], [TokensError::Shared { .. }]));
        assert!(shows("llambo_ours") && !shows("llambo_theirs"));
    }

    #[test]
    fn where_nothing_is_required_a_wrong_token_is_still_wrong() {
        let admit = |value: Option<&str>, names: &[&str]| {
            access(false).admit(&request("/v1/models", value, names), Protocol::Http).map(|caller| caller.tenant.to_string())
        };
        assert_eq!(admit(None, &[]), Ok("default".into()));
        assert_eq!(admit(None, &["stranger"]), Ok("default".into()));
        assert_eq!(admit(Some("Bearer llambo_a"), &[]), Ok("acme".into()));
        assert_eq!(admit(Some("Bearer wrong"), &[]), Err(Refusal::Unknown));
    }
}
