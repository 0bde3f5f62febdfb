use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::{X509, X509Name};

use super::*;

struct Pair {
    certificate: String,
    key: PKey<Private>,
}

fn pem(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Returns a self-signed certificate that expires at `until`, in seconds since 1970.
fn pair(key: PKey<Private>, until: i64) -> Pair {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "test").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(until).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    Pair { certificate: pem(builder.build().to_pem().unwrap()), key }
}

const FUTURE: i64 = 4_000_000_000;

fn ec() -> EcKey<Private> {
    EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap()
}

fn file(name: &str, text: &str) -> PemFile {
    PemFile::new(PathBuf::from(name), text.as_bytes().to_vec()).unwrap()
}

fn client(certificate: &str, key: &str) -> Result<Checked, CertificateError> {
    let client = Some((file("/c/cert.pem", certificate), file("/c/key.pem", key)));
    check(&TlsFiles { client, ..TlsFiles::default() })
}

#[test]
fn every_key_format_is_accepted_with_its_certificate() {
    let curve = ec();
    let rsa = Rsa::generate(2048).unwrap();
    let (sec1, pkcs1) = (curve.private_key_to_pem().unwrap(), rsa.private_key_to_pem().unwrap());
    let ec = pair(PKey::from_ec_key(curve).unwrap(), FUTURE);
    let rsa = pair(PKey::from_rsa(rsa).unwrap(), FUTURE);
    let cases = [
        (&ec, pem(sec1)),
        (&rsa, pem(pkcs1)),
        (&ec, pem(ec.key.private_key_to_pem_pkcs8().unwrap())),
        (&rsa, pem(rsa.key.private_key_to_pem_pkcs8().unwrap())),
    ];
    for (pair, key) in &cases {
        let begin = key.lines().next().unwrap_or_default();
        let checked = client(&pair.certificate, key).unwrap_or_else(|error| panic!("{begin}: {error}"));
        assert!(checked.identity.is_some() && checked.warnings.is_empty(), "{begin}");
        // A file may hold both, in any order.
        client(&format!("{key}{}", pair.certificate), &format!("{}{key}", pair.certificate)).unwrap();
    }
    let error = client(&ec.certificate, &cases[1].1).err().unwrap().to_string();
    assert!(error.contains("/c/key.pem does not belong to the certificate /c/cert.pem"), "{error}");
}

#[test]
fn encrypted_keys_have_their_own_error() {
    let pair = pair(PKey::from_ec_key(ec()).unwrap(), FUTURE);
    let new = pair.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
    let old =
        pair.key.ec_key().unwrap().private_key_to_pem_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
    // Also with an empty password.
    let empty = pair.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"").unwrap();
    for key in [new, old, empty] {
        let error = client(&pair.certificate, &pem(key)).err().unwrap();
        assert!(matches!(&error, CertificateError::Encrypted { path } if path == "/c/key.pem"), "{error}");
    }
}

/// Its number of rounds could cost hours.
#[test]
fn an_encrypted_pkcs8_key_is_not_parsed() {
    let pair = pair(PKey::from_ec_key(ec()).unwrap(), FUTURE);
    let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIG=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let error = client(&pair.certificate, key).err().unwrap();
    assert!(matches!(&error, CertificateError::Encrypted { path } if path == "/c/key.pem"), "{error}");
    let plain = pem(pair.key.private_key_to_pem_pkcs8().unwrap());
    assert!(client(&pair.certificate, &format!("{plain}{key}")).is_ok(), "the first key counts");
    let broken = plain.replace("-----END", "");
    let error = client(&pair.certificate, &format!("{broken}{key}")).err().unwrap();
    assert!(matches!(&error, CertificateError::Encrypted { .. }), "{error}");
}

#[test]
fn every_truncated_file_is_an_error_that_quotes_nothing() {
    let pair = pair(PKey::from_ec_key(ec()).unwrap(), FUTURE);
    let key = pem(pair.key.private_key_to_pem_pkcs8().unwrap());
    let whole = key.trim_end().len();
    for end in 0..whole {
        let error =
            client(&pair.certificate, key.split_at(end).0).err().unwrap_or_else(|| panic!("{end} bytes"));
        let text = format!("{error} {error:?}");
        assert!(text.contains("/c/key.pem") && !text.contains("MIG"), "{end} bytes: {text}");
    }
    for end in 0..pair.certificate.trim_end().len() {
        assert!(client(pair.certificate.split_at(end).0, &key).is_err(), "{end} bytes");
    }
    let files =
        TlsFiles { client: Some((file("c", &pair.certificate), file("k", &key))), ..TlsFiles::default() };
    assert!(!format!("{files:?}").contains("BEGIN"), "{files:?}");
}

#[test]
fn an_expired_certificate_is_warned_about_and_named_in_errors() {
    let old = pair(PKey::from_ec_key(ec()).unwrap(), 1_000_000_000);
    let new = pair(PKey::from_ec_key(ec()).unwrap(), FUTURE);
    let checked = client(&old.certificate, &pem(old.key.private_key_to_pem_pkcs8().unwrap())).unwrap();
    assert!(
        checked.warnings[0].contains("file=/c/cert.pem since=\"Sep  9 01:46:40 2001 GMT\""),
        "{:?}",
        checked.warnings
    );
    assert!(checked.names.client.unwrap().contains("expired since Sep  9"));
    let ca = |text: &str| {
        let ca = Some(file("/c/ca.pem", text));
        check(&TlsFiles { verify: true, ca, ..TlsFiles::default() }).unwrap()
    };
    assert!(ca(&old.certificate).names.ca_expired.unwrap().contains("2001"));
    let both = ca(&format!("{}{}", old.certificate, new.certificate));
    assert_eq!((both.names.ca_expired, both.authorities.len()), (None, 2));
}
