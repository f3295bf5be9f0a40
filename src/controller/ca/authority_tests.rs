//! The authority with material as Leno makes it, as cert-manager makes it, and as nobody should.

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use x509_parser::extensions::GeneralName;

use super::*;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn domains() -> Domains {
    Domains { own: "cluster.local".into(), also: vec!["partner.example".into()] }
}

fn web() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn authority(kept: &Kept) -> Authority {
    Authority::load(kept, &domains(), start()).unwrap()
}

fn sign(authority: &Authority, life: SignedDuration, now: Timestamp) -> Result<Signed, AuthorityError> {
    authority.sign(&new_key(), &web(), life, [0xff; 16], now)
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A CA's certificate with its key, signed by another or by itself.
struct Ca {
    pem: String,
    params: CertificateParams,
    key: String,
}

fn ca(name: &str, by: Option<&Ca>, change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (time_of(start() - hours(1)).unwrap(), time_of(start() + hours(100)).unwrap());
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match by {
        Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, KeyPair::from_pem(&by.key).unwrap())),
        None => params.self_signed(&key),
    };
    Ca { pem: certificate.unwrap().pem(), params, key: key.serialize_pem() }
}

fn brought(signer: &Ca, between: &[&Ca], roots: &[&Ca]) -> Kept {
    let pems = |cas: &[&Ca]| cas.iter().map(|ca| ca.pem.as_str()).collect::<String>();
    let signing = Pair { certificate: signer.pem.clone() + &pems(between), key: signer.key.clone() };
    Kept { signing, roots: pems(roots), next: None, step: None, own: false }
}

#[test]
fn a_new_mesh_has_a_root_of_ten_years_that_signs_and_is_trusted() {
    let authority = authority(&make(&domains(), start()).unwrap());
    let (signer, roots) = (authority.signer(), authority.roots());
    assert_eq!(roots, std::slice::from_ref(signer));
    assert_eq!((signer.not_before, signer.not_after), (start() - BACKDATED, start() + hours(24 * 3650)));
    let trust = authority.trust();
    assert_eq!((trust.roots.len(), hex(&trust.issuer)), (1, signer.fingerprint.clone()));
    assert_eq!((&*trust.trust_domain, trust.also.len()), ("cluster.local", 1));
}

#[test]
fn a_certificate_names_its_identity_critically_and_nobody_else() {
    let authority = authority(&make(&domains(), start()).unwrap());
    let signed = sign(&authority, hours(24), start()).unwrap();
    assert_eq!(signed.chain.len(), 1, "the root is known to everybody");
    let (_, leaf) = x509_parser::parse_x509_certificate(&signed.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical && leaf.subject().iter().next().is_none());
    assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web")]);
    assert!(!leaf.is_ca() && leaf.basic_constraints().unwrap().unwrap().critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    assert_eq!((hex(leaf.raw_serial()), signed.serial.len()), (signed.serial.clone(), 32));
    assert_eq!(signed.serial, "7fffffffffffffffffffffffffffffff");
    assert_eq!(leaf.validity().not_after.timestamp(), (start() + hours(24)).as_second());
}

#[test]
fn a_certificate_begins_before_now_but_never_outside_the_life_of_what_signed_it() {
    let young = ca("young", None, |it| it.not_before = time_of(start() - SignedDuration::from_mins(1)).unwrap());
    let authority = authority(&brought(&young, &[], &[&young]));
    let validity = |signed: &Signed| {
        let about = About::of(&signed.chain[0], "a test").unwrap();
        (about.not_before, about.not_after)
    };
    let minute = SignedDuration::from_mins(1);
    assert_eq!(validity(&sign(&authority, hours(1), start()).unwrap()), (start() - minute, start() + hours(1)));
    let late = start() + hours(99);
    assert_eq!(validity(&sign(&authority, hours(24), late).unwrap()), (late - BACKDATED, start() + hours(100)));
    let error = sign(&authority, hours(24), start() + hours(100)).unwrap_err();
    assert!(error.to_string().contains("leno ca rotate"), "{error}");
}

#[test]
fn material_in_the_layout_of_cert_manager_signs_with_all_that_leads_to_the_root() {
    let root = ca("root", None, |_| ());
    let upper = ca("upper", Some(&root), |_| ());
    let lower = ca("lower", Some(&upper), |_| ());
    let authority = authority(&brought(&lower, &[&upper], &[&root]));
    let signed = sign(&authority, hours(1), start()).unwrap();
    assert_eq!(signed.chain.len(), 3, "leaf, lower, upper");
    assert_eq!((authority.signer().subject.as_str(), authority.roots()[0].subject.as_str()), ("CN=lower", "CN=root"));
    assert_eq!(hex(&authority.trust().issuer), fingerprint(&lower.pem).unwrap());
}

#[test]
fn a_chain_that_ends_in_its_root_needs_no_further_root_and_a_root_named_twice_is_one() {
    let root = ca("root", None, |_| ());
    let signer = ca("signer", Some(&root), |_| ());
    let authority_of = |kept| authority(&kept);
    let alone = authority_of(brought(&signer, &[&root], &[]));
    let twice = authority_of(brought(&signer, &[&root], &[&root, &root]));
    assert_eq!((alone.trust(), alone.chain.len()), (twice.trust(), 1));
}

#[test]
fn an_rsa_or_p384_key_and_one_in_the_older_encoding_sign_too() {
    // As `openssl ecparam -genkey` and cert-manager's default encoding (PKCS #1, which is SEC 1 for these keys) write it.
    let pair = ca("older", None, |_| ());
    let key = p256_sec1(&pair.key);
    let kept = Kept { signing: Pair { certificate: pair.pem.clone(), key }, ..brought(&pair, &[], &[&pair]) };
    sign(&authority(&kept), hours(1), start()).unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = pair.params.self_signed(&key).unwrap().pem();
    let kept = Kept {
        signing: Pair { certificate: certificate.clone(), key: key.serialize_pem() },
        roots: certificate,
        ..brought(&pair, &[], &[])
    };
    sign(&authority(&kept), hours(1), start()).unwrap();
}

/// A PKCS #8 key of P-256 as SEC 1: the octet string inside.
fn p256_sec1(pkcs8_pem: &str) -> String {
    use rustls_pki_types::PrivatePkcs8KeyDer;
    let der = PrivatePkcs8KeyDer::from_pem_slice(pkcs8_pem.as_bytes()).unwrap();
    let der = der.secret_pkcs8_der();
    let at = der.windows(5).position(|it| it == [0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() - 2;
    let base64 = serde_json::to_value(k8s_openapi::ByteString(der[at..].to_vec())).unwrap();
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", base64.as_str().unwrap())
}

#[test]
fn what_cannot_be_used_is_said_in_words() {
    let root = ca("root", None, |_| ());
    let other = ca("other", None, |_| ());
    let leaf = ca("leaf", Some(&root), |it| it.is_ca = IsCa::NoCa);
    let blind = ca("blind", None, |it| it.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let old = ca("old", None, |it| it.not_after = time_of(start()).unwrap());
    let future = ca("future", None, |it| it.not_before = time_of(start() + hours(1)).unwrap());
    let short = ca("short", Some(&old), |_| ());
    let shallow = ca("shallow", Some(&root), |it| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_deep = ca("too deep", Some(&shallow), |_| ());
    let good = brought(&root, &[], &[&root]);
    let with = |change: fn(&mut Kept)| {
        let mut kept = good.clone();
        change(&mut kept);
        kept
    };
    let cases = [
        ("no certificate", with(|it| it.signing.certificate.clear()), "tls.crt holds no certificate"),
        (
            "damaged certificate",
            with(|it| it.signing.certificate = it.signing.certificate.replace("MII", "???")),
            "tls.crt holds no certificate",
        ),
        ("cut certificate", with(|it| it.signing.certificate.truncate(200)), "tls.crt holds no certificate"),
        ("no key", with(|it| it.signing.key.clear()), "tls.key holds no private key"),
        ("damaged roots", with(|it| it.roots = it.roots.replace("MII", "???")), "ca.crt holds no root certificate"),
        (
            "another's key",
            Kept { signing: Pair { key: other.key.clone(), ..good.signing.clone() }, ..good.clone() },
            "tls.key is not the key",
        ),
        ("not a CA", brought(&leaf, &[], &[&root]), "may not sign"),
        ("may not sign", brought(&blind, &[], &[&blind]), "may not sign"),
        ("ended", brought(&old, &[], &[&old]), "valid from 2025-12-31T23:00:00Z to 2026-01-01T00:00:00Z"),
        ("not yet", brought(&future, &[], &[&future]), "valid from 2026-01-01T01:00:00Z"),
        ("root ended", brought(&short, &[], &[&old]), "CN=old in ca.crt is valid"),
        ("another root", brought(&other, &[], &[&root]), "add the root that tls.crt leads to"),
        ("no way to the root", brought(&ca("low", Some(&ca("mid", Some(&root), |_| ())), |_| ()), &[], &[&root]), "what is between them"),
        ("below one that allows no CA below", brought(&too_deep, &[&shallow], &[&root]), "not trusted by any root"),
        ("no root at all", brought(&ca("signer", Some(&root), |_| ()), &[], &[]), "ca.crt holds no root certificate"),
    ];
    for (name, kept, text) in cases {
        let error = Authority::load(&kept, &domains(), start()).expect_err(name).to_string();
        assert!(error.contains(text), "{name}: {error}");
    }
}

#[test]
fn a_root_that_has_ended_is_left_out_while_another_is_there() {
    let (old, root) = (ca("old", None, |it| it.not_after = time_of(start() + hours(1)).unwrap()), ca("root", None, |_| ()));
    let kept = brought(&root, &[], &[&old, &root]);
    let before = authority(&kept);
    assert_eq!((before.roots().len(), before.has_aged(start()), before.has_aged(start() + hours(1))), (2, false, true));
    let after = Authority::load(&kept, &domains(), start() + hours(1)).unwrap();
    assert_eq!((after.roots().len(), after.has_aged(start() + hours(1))), (1, false));
}
