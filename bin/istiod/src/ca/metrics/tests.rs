//! What a scrape shows.

use std::time::Duration;

use prometheus_client::encoding::text::encode;

use super::*;

#[test]
fn counters_have_the_names_that_dashboards_of_istio_ask_for() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.observe(Event::Received);
    metrics.observe(Event::Received);
    metrics.observe(Event::Signed);
    metrics.observe(Event::Malformed);
    let denied = Denied::Unauthenticated(String::new());
    metrics.observe(Event::Denied(&denied));
    metrics.observe(Event::Refused(&issuer::Error::NotSigned));
    let expired = SystemTime::now() - Duration::from_secs(1000);
    let chain = UNIX_EPOCH + Duration::from_secs(5_000_000_000);
    metrics.in_force(
        2,
        Expiry {
            root: expired,
            chain,
        },
    );

    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "citadel_server_csr_count 2",
        "citadel_server_success_cert_issuance_count 1",
        "citadel_server_authentication_failure_count 1",
        "citadel_server_csr_parsing_err_count 0",
        "citadel_server_id_extraction_err_count 1",
        "citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"} 1",
        "citadel_server_denied_requests_total{reason=\"unauthenticated\"} 1",
        "citadel_server_trusted_roots 2",
        "citadel_server_cert_chain_expiry_timestamp 5000000000.0",
        "citadel_server_root_cert_expiry_seconds -100",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(line)),
            "{line} is not in\n{text}"
        );
    }
}
