//! Certificates for tests, as files.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM form.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named(name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// With a common name, and DNS names and URIs besides.
    pub(crate) fn sign(&self, common: &str, alternative: &[SanType]) -> Signed {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(common);
        params.subject_alt_names = alternative.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// For a host that is asked for as `localhost` or by its address.
    pub(crate) fn sign_host(&self) -> Signed {
        let address = SanType::IpAddress("127.0.0.1".parse().unwrap());
        self.sign("host", &[SanType::DnsName("localhost".try_into().unwrap()), address])
    }
}

impl Signed {
    pub(crate) fn write(&self, folder: &Path) {
        fs::write(folder.join("host.pem"), &self.certificate).unwrap();
        fs::write(folder.join("host.key"), &self.key).unwrap();
    }
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
