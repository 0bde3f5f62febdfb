//! A small certificate authority, made with the `openssl` command as in Docker's guide.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority, and a folder for the certificates that it signs; dropping it removes the folder.
pub struct Pki {
    folder: TempDir,
}

/// The format of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `BEGIN PRIVATE KEY`, elliptic curve.
    Pkcs8,
    /// `BEGIN RSA PRIVATE KEY`.
    Pkcs1,
    /// `BEGIN EC PRIVATE KEY`, after the parameters that `openssl ecparam` writes.
    Sec1,
    /// `BEGIN ENCRYPTED PRIVATE KEY`.
    Encrypted,
    /// `BEGIN EC PRIVATE KEY` with `Proc-Type: 4,ENCRYPTED`.
    EncryptedOld,
}

impl Key {
    /// Returns the label of the key's PEM block.
    fn begin(self) -> &'static str {
        match self {
            Self::Pkcs8 => "BEGIN PRIVATE KEY",
            Self::Pkcs1 => "BEGIN RSA PRIVATE KEY",
            Self::Sec1 | Self::EncryptedOld => "BEGIN EC PRIVATE KEY",
            Self::Encrypted => "BEGIN ENCRYPTED PRIVATE KEY",
        }
    }
}

impl Pki {
    /// Creates an authority.
    pub fn new() -> Self {
        Self::named("OZ test authority")
    }

    /// Creates an authority with this name. OpenSSL finds only one of several authorities with the same name.
    pub fn named(name: &str) -> Self {
        let pki = Self { folder: tempfile::tempdir().expect("a folder") };
        let name = &format!("/CN={name}");
        pki.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key", &[]);
        pki.openssl("req -x509 -new -key ca.key -days 2 -out ca.pem -subj", &[name]);
        pki
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// Makes a server certificate and returns the paths of `NAME.pem` and `NAME.key`. `hosts` is like
    /// `DNS:localhost,IP:127.0.0.1`. It has expired if `days` is negative.
    pub fn server(&self, name: &str, hosts: &str, days: i32) -> (PathBuf, PathBuf) {
        self.key(&format!("{name}.key"), Key::Pkcs8);
        self.sign(name, &format!("subjectAltName={hosts}\nextendedKeyUsage=serverAuth\n"), days);
        (self.path().join(format!("{name}.pem")), self.path().join(format!("{name}.key")))
    }

    /// Makes a folder for `DOCKER_CERT_PATH`, with the authority's certificate, a client certificate, and its key in this
    /// format.
    pub fn client(&self, name: &str, kind: Key, days: i32) -> PathBuf {
        let folder = self.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        self.key(&format!("{name}.key"), kind);
        self.sign(name, "extendedKeyUsage=clientAuth\n", days);
        let copy = |from: &str, to: &str| {
            std::fs::copy(self.path().join(from), folder.join(to)).expect("a copy");
        };
        copy("ca.pem", "ca.pem");
        copy(&format!("{name}.pem"), "cert.pem");
        copy(&format!("{name}.key"), "key.pem");
        folder
    }

    fn key(&self, file: &str, kind: Key) {
        let curve = "prime256v1";
        let password = ["-passout", "pass:secret"];
        match kind {
            Key::Pkcs8 => {
                self.openssl(
                    &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {file}"),
                    &[],
                );
            }
            Key::Pkcs1 => self.openssl(&format!("genrsa -traditional -out {file} 2048"), &[]),
            Key::Sec1 => self.openssl(&format!("ecparam -name {curve} -genkey -out {file}"), &[]),
            Key::Encrypted => {
                let command =
                    format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -aes128 -out {file}");
                self.openssl(&command, &["-pass", "pass:secret"]);
            }
            Key::EncryptedOld => {
                self.openssl(&format!("ecparam -name {curve} -genkey -noout -out {file}.plain"), &[]);
                self.openssl(&format!("ec -in {file}.plain -aes128 -out {file}"), &password);
            }
        }
        let text = std::fs::read_to_string(self.path().join(file)).expect("a key");
        assert!(text.contains(kind.begin()), "{kind:?} is\n{text}");
    }

    fn sign(&self, name: &str, extensions: &str, days: i32) {
        std::fs::write(self.path().join("extensions"), extensions).expect("a file");
        let subject = format!("/CN={name}");
        self.openssl(
            &format!("req -new -key {name}.key -passin pass:secret -out {name}.csr -subj"),
            &[&subject],
        );
        if days < 0 {
            // The lifetime of `x509` cannot be negative since OpenSSL 3.5.
            let config = "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=.\ncertificate=ca.pem\n\
                          private_key=ca.key\ndefault_md=sha256\npolicy=any\nrand_serial=yes\nunique_subject=no\n[any]\n\
                          commonName=supplied\n";
            std::fs::write(self.path().join("ca.cnf"), config).expect("a file");
            std::fs::write(self.path().join("index.txt"), "").expect("a file");
            let dates = "-startdate 20200101000000Z -enddate 20200102000000Z";
            let files = format!("-in {name}.csr -extfile extensions -out {name}.pem");
            return self.openssl(&format!("ca -batch -notext -config ca.cnf {dates} {files}"), &[]);
        }
        self.openssl(
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.pem"
            ),
            &[],
        );
    }

    fn openssl(&self, command: &str, more: &[&str]) {
        let output =
            Command::new("openssl").args(command.split(' ')).args(more).current_dir(self.path()).output();
        let output = output.expect("the openssl command");
        assert!(output.status.success(), "openssl {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
