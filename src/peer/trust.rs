//! Who is a member: whoever knows the cluster secret, or, in a cluster without one, whoever calls from loopback.
//!
//! The secret is the seed of a certificate authority. Each process makes itself a certificate of that authority, so that
//! mutual TLS 1.3 (RFC 8446) proves both sides' knowledge and nothing of the secret goes over the wire.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::chain::HashAlg;
use crate::peer::PeerStream;

/// Fewer bytes can be guessed.
const SECRET_BYTES_MIN: usize = 32;
/// More is another file, not a secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Before the secret, so that the authority's key is of no use elsewhere.
const AUTHORITY_DOMAIN: &[u8] = b"qbc/cluster-authority/v1\n\0";
/// An Ed25519 key by RFC 8410: the bytes before its seed.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// The name of every member in its certificate: which one it is, the link says.
const MEMBER_NAME: &str = "qbc-node";
/// HTTP/2 alone is spoken.
const ALPN: &[u8] = b"h2";

/// The cluster secret can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The system.
    #[error(
        "the cluster secret {file} can't be read: {why}; copy it from another member, or make one for a new cluster: head -c 32 /dev/urandom | base64 > secret"
    )]
    Io {
        /// Which.
        file: String,
        /// Why.
        why: io::Error,
    },
    /// It is too short, or no secret at all.
    #[error(
        "the cluster secret {file} has {bytes} bytes, at least 32 and at most 65536 are needed; make one: head -c 32 /dev/urandom | base64 > secret"
    )]
    Size {
        /// Which.
        file: String,
        /// How many it has.
        bytes: u64,
    },
    /// Others can read it.
    #[error("the cluster secret {0} can be read by others; chmod 600 it")]
    Open(String),
    /// The certificate of this process can't be made.
    #[error("TLS between members can't be set up: {0}")]
    Tls(String),
    /// An address that nothing can be reached under.
    #[error("{0:?} is no address of a member; give HOST:PORT")]
    Address(String),
}

/// What a process knows members by.
#[derive(Clone)]
pub struct Trust(Arc<Known>);

struct Known {
    /// Set up from the secret; none without one.
    tls: Option<(TlsAcceptor, TlsConnector)>,
    trust_loopback: bool,
}

/// Who is at the other end of a connection; services find it in the extensions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The address, where the system told it.
    pub address: Option<SocketAddr>,
    /// True if the other side showed that it knows the secret.
    pub tls: bool,
}

impl Trust {
    /// Reads the secret, and makes this process a certificate of it. Without a file only loopback can be believed.
    pub fn load(secret_file: Option<&Path>, trust_loopback: bool) -> Result<Self, TrustError> {
        let tls = match secret_file {
            Some(file) => Some(tls(&read_secret(file)?)?),
            None => None,
        };
        Ok(Self(Arc::new(Known {
            tls,
            trust_loopback,
        })))
    }

    /// True if members show each other that they know the secret.
    pub fn has_secret(&self) -> bool {
        self.0.tls.is_some()
    }

    /// The handshake of the side that was called. Fails without a secret, and if the other side does not know it.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<PeerStream> {
        let (acceptor, _) = self.0.tls.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "there is no cluster secret here",
            )
        })?;
        let stream = acceptor.accept(stream).await?;
        Ok(PeerStream::Tls(Box::new(TlsStream::from(stream))))
    }

    /// The handshake of the side that calls; without a secret the connection stays in the clear. That the other side
    /// does not believe this one shows with the first bytes, not here.
    pub async fn connect<S>(&self, stream: S) -> io::Result<PeerStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some((_, connector)) = &self.0.tls else {
            return Ok(PeerStream::Plain(stream));
        };
        let name = ServerName::try_from(MEMBER_NAME).map_err(io::Error::other)?;
        let stream = connector.connect(name, stream).await?;
        Ok(PeerStream::Tls(Box::new(TlsStream::from(stream))))
    }

    /// The same, of a connection.
    pub fn believes(&self, info: &PeerInfo) -> bool {
        self.trusts(info.tls, info.address.map(|address| address.ip()))
    }

    /// True if who calls is a member: it passed the handshake, or calls from loopback where that is enough.
    pub fn trusts(&self, tls: bool, peer: Option<IpAddr>) -> bool {
        let near = peer.is_some_and(|address| address.to_canonical().is_loopback());
        tls || (near && !self.has_secret() && self.0.trust_loopback)
    }
}

/// The secret, without the white space around it.
fn read_secret(path: &Path) -> Result<Vec<u8>, TrustError> {
    let file = path.display().to_string();
    let read = || {
        let opened = File::open(path)?;
        let mode = opened.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok((mode, bytes))
    };
    let (mode, bytes) = read().map_err(|why| TrustError::Io {
        file: file.clone(),
        why,
    })?;
    if mode & 0o077 != 0 {
        return Err(TrustError::Open(file));
    }
    let secret = bytes.trim_ascii();
    if secret.len() < SECRET_BYTES_MIN || bytes.len() as u64 > SECRET_BYTES_MAX {
        let bytes = secret.len() as u64;
        return Err(TrustError::Size { file, bytes });
    }
    Ok(secret.to_vec())
}

fn tls(secret: &[u8]) -> Result<(TlsAcceptor, TlsConnector), TrustError> {
    let error = |error: &dyn std::fmt::Display| TrustError::Tls(error.to_string());
    let authority = authority(secret).map_err(|why| error(&why))?;
    let member = Member::new(&authority).map_err(|why| error(&why))?;
    let roots = roots(&authority).map_err(|why| error(&why))?;
    let server = server(roots.clone(), &member).map_err(|why| error(&why))?;
    let client = client(roots, Some(&member)).map_err(|why| error(&why))?;
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The authority that the secret stands for, the same in every process. Its certificate holds for ever, as rcgen's
/// default has it: the secret is what is changed.
fn authority(secret: &[u8]) -> Result<Authority, rcgen::Error> {
    let seed = HashAlg::Sha3_256.hash(&[AUTHORITY_DOMAIN, secret]);
    let key = PrivatePkcs8KeyDer::from([PKCS8_HEAD.as_slice(), &seed].concat());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "qbc cluster");
    CertifiedIssuer::self_signed(params, key)
}

/// The key and certificate of one process.
struct Member {
    key: Vec<u8>,
    certificate: CertificateDer<'static>,
}

impl Member {
    fn new(authority: &Authority) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new([MEMBER_NAME.to_owned()])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, MEMBER_NAME);
        let certificate = params.signed_by(&key, authority)?;
        Ok(Self {
            key: key.serialize_der(),
            certificate: certificate.der().clone(),
        })
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &Authority) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    Ok(Arc::new(roots))
}

fn server(roots: Arc<RootCertStore>, member: &Member) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|why| rustls::Error::General(why.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(member.chain(), member.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Links live long: each new one shows anew that the secret is known.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Without a member, a client that has no certificate to show.
fn client(
    roots: Arc<RootCertStore>,
    member: Option<&Member>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut config = match member {
        Some(member) => builder.with_client_auth_cert(member.chain(), member.key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn trust(dir: &Path, secret: &str) -> Trust {
        let file = dir.join("secret");
        write(&file, secret);
        Trust::load(Some(&file), true).unwrap()
    }

    fn write(file: &Path, secret: &str) {
        fs::write(file, secret).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn secret_of(dir: &Path, letter: &str) -> Trust {
        trust(dir, &format!("{}\n", letter.repeat(32)))
    }

    /// What the called side makes of the caller: the first bytes, or why it hung up.
    async fn called(trust: &Trust, listener: TcpListener) -> io::Result<[u8; 4]> {
        let (stream, _) = listener.accept().await?;
        let mut stream = trust.accept(stream).await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(b"pong").await?;
        stream.shutdown().await?;
        Ok(bytes)
    }

    async fn ping<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<[u8; 4]> {
        stream.write_all(b"ping").await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// A call from one to the other, and what each saw.
    async fn call(from: &Trust, to: &Trust) -> (io::Result<[u8; 4]>, io::Result<[u8; 4]>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let caller = async {
            let stream = TcpStream::connect(address).await?;
            ping(from.connect(stream).await?).await
        };
        tokio::join!(caller, called(to, listener))
    }

    /// The same with a TLS client of any making.
    async fn call_with(config: ClientConfig, to: &Trust) -> io::Result<[u8; 4]> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let caller = async {
            let stream = TcpStream::connect(address).await?;
            let connector = TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from(MEMBER_NAME).unwrap();
            ping(connector.connect(name, stream).await?).await
        };
        let (called, answered) = tokio::join!(called(to, listener), caller);
        assert!(called.is_err(), "the called side hangs up");
        answered
    }

    #[tokio::test]
    async fn two_processes_of_one_secret_talk() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (secret_of(dir.path(), "a"), secret_of(dir.path(), "a"));
        let (answer, question) = call(&one, &two).await;
        assert_eq!(&answer.unwrap(), b"pong");
        assert_eq!(&question.unwrap(), b"ping");
    }

    #[tokio::test]
    async fn another_secret_is_refused_by_the_caller_and_by_the_called() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (secret_of(dir.path(), "a"), secret_of(dir.path(), "b"));
        let (answer, question) = call(&theirs, &ours).await;
        let told = answer.unwrap_err().to_string();
        assert!(told.contains("certificate"), "{told}");
        assert!(question.is_err());
        // A caller that believes everything of ours, and shows a certificate of another secret.
        let (good, bad) = (
            authority(&[b'a'; 32]).unwrap(),
            authority(&[b'b'; 32]).unwrap(),
        );
        let stranger = Member::new(&bad).unwrap();
        let config = client(roots(&good).unwrap(), Some(&stranger)).unwrap();
        assert!(call_with(config, &ours).await.is_err());
    }

    #[tokio::test]
    async fn a_caller_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ours = secret_of(dir.path(), "a");
        let roots = roots(&authority(&[b'a'; 32]).unwrap()).unwrap();
        assert!(
            call_with(client(roots, None).unwrap(), &ours)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn the_clear_is_no_way_into_tls_and_tls_none_into_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let secret = secret_of(dir.path(), "a");
        let open = Trust::load(None, true).unwrap();
        assert!(secret.has_secret() && !open.has_secret());
        let (answer, question) = call(&open, &secret).await;
        // The caller may read the alert that says so.
        assert!(answer.ok() != Some(*b"pong") && question.is_err());
        let (answer, question) = call(&secret, &open).await;
        assert!(answer.is_err() && question.is_err());
    }

    #[test]
    fn without_a_secret_loopback_is_believed_unless_it_is_not_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let near = ["127.0.0.1", "::1", "::ffff:127.0.0.1"];
        let (open, wary) = (
            Trust::load(None, true).unwrap(),
            Trust::load(None, false).unwrap(),
        );
        let secret = secret_of(dir.path(), "a");
        for peer in near.map(address) {
            assert!(open.trusts(false, peer));
            assert!(!wary.trusts(false, peer));
            assert!(!secret.trusts(false, peer));
        }
        assert!(!open.trusts(false, address("192.0.2.1")) && !open.trusts(false, None));
        assert!(secret.trusts(true, address("192.0.2.1")));
    }

    #[test]
    fn a_secret_that_is_short_or_open_to_others_or_missing_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let told = || match Trust::load(Some(&file), true) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(told().contains("urandom"), "{}", told());
        write(&file, &format!("  {}\n\n", "x".repeat(31)));
        assert!(
            told().contains("31 bytes") && told().contains("urandom"),
            "{}",
            told()
        );
        write(&file, &"x".repeat(70_000));
        assert!(told().contains("at most 65536"), "{}", told());
        write(&file, &format!("  {}\n\n", "x".repeat(32)));
        assert_eq!(told(), "taken");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(told().contains("chmod 600"), "{}", told());
    }
}
