//! Whether a Secret holds a certificate, its key, and the names that it is asked for.

use explain::Certificate;
use k8s_openapi::api::core::v1::Secret;
use pki::CertificateView;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use serde_json::Value;

/// What a Secret is worth as the certificate of these hosts. `now` in seconds since the epoch.
pub fn judge(secret: &Value, hosts: &[String], now: i64) -> Certificate {
    match read(secret, now) {
        Err(why) => Certificate::Bad(why),
        Ok(view) => {
            let names = if view.dns_names.is_empty() { vec![view.common_name] } else { view.dns_names };
            let strange: Vec<String> =
                hosts.iter().filter(|host| !names.iter().any(|name| covers(name, host))).cloned().collect();
            if strange.is_empty() { Certificate::Good } else { Certificate::OtherHosts { hosts: strange, names } }
        }
    }
}

fn read(secret: &Value, now: i64) -> Result<CertificateView, String> {
    let secret = Secret::deserialize(secret).map_err(|error| format!("cannot be read: {error}"))?;
    let data = secret.data.unwrap_or_default();
    let field = |name: &str| data.get(name).map(|bytes| bytes.0.as_slice()).ok_or(format!("holds no {name}"));
    let (certificate, key) = (field("tls.crt")?, field("tls.key")?);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("holds a tls.crt that is no PEM: {error}"))?;
    let first = chain.first().ok_or("holds no certificate in tls.crt")?;
    let view = CertificateView::from_der(first).map_err(|_| "holds a tls.crt that is no certificate".to_owned())?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "holds a tls.key that is no private key".to_owned())?;
    match CertifiedKey::from_der(chain, key, &pki::tls::provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err("holds a key that does not belong to its certificate".to_owned());
        }
        Err(error) => return Err(format!("cannot be used: {error}")),
    }
    if now > view.not_after {
        return Err(format!("holds a certificate that expired {} ago", age(now - view.not_after)));
    }
    if now < view.not_before {
        return Err(format!("holds a certificate that is valid only in {}", age(view.not_before - now)));
    }
    Ok(view)
}

fn age(seconds: i64) -> String {
    meta::time::human_duration(seconds)
}

/// Whether a certificate's name is good for a host: itself, or one label in the place of a star.
fn covers(name: &str, host: &str) -> bool {
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => rest == domain && !label.is_empty(),
        _ => name == host,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    use pki::{Authority, CertificateRequest, Credential};

    use super::{Certificate, covers, judge};

    const NOW: i64 = 1_767_226_200;

    fn issue(names: &[&str]) -> Credential {
        let authority = Authority::generate("test", NOW).unwrap();
        let request = CertificateRequest {
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            life: Duration::from_secs(86_400),
            ..CertificateRequest::client("shop", None)
        };
        authority.issue(&request, NOW).unwrap()
    }

    fn of(certificate: &str, key: &str, now: i64) -> Certificate {
        let fields = [("tls.crt", certificate), ("tls.key", key)].into_iter().filter(|(_, text)| !text.is_empty());
        let data = fields.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
        let secret = serde_json::to_value(Secret { data: Some(data), ..Secret::default() }).unwrap();
        judge(&secret, &["shop.example".to_owned()], now)
    }

    #[test]
    fn secrets_are_judged_as_certificates() {
        let (good, other) = (issue(&["shop.example"]), issue(&["other.example", "*.shop.example"]));
        let bad = |why: &str| Certificate::Bad(why.to_owned());
        assert_eq!(of(&good.certificate_pem, &good.key_pem, NOW), Certificate::Good);
        assert_eq!(of(&good.certificate_pem, "", NOW), bad("holds no tls.key"));
        assert_eq!(of("nonsense", &good.key_pem, NOW), bad("holds no certificate in tls.crt"));
        assert_eq!(
            of(&good.certificate_pem, &other.key_pem, NOW),
            bad("holds a key that does not belong to its certificate")
        );
        assert_eq!(
            of(&good.certificate_pem, &good.key_pem, NOW + 2 * 86_400),
            bad("holds a certificate that expired 24h ago")
        );
        let names = vec!["other.example".to_owned(), "*.shop.example".to_owned()];
        assert_eq!(
            of(&other.certificate_pem, &other.key_pem, NOW),
            Certificate::OtherHosts { hosts: vec!["shop.example".to_owned()], names }
        );
        assert!(covers("*.shop.example", "www.Shop.example") && !covers("*.shop.example", "a.b.shop.example"));
    }
}
