//! Brokers that speak TLS, ask who comes, and refuse.

use riomar_infra::{
    Certificates, KafkaOptions,
    kafka::{PASSWORD, USER},
};

use super::*;

fn certificates() -> Arc<Certificates> {
    Arc::new(Certificates::generate().unwrap_or_else(|error| panic!("{error}")))
}

fn start(options: KafkaOptions) -> KafkaBroker {
    KafkaBroker::start_with(options).unwrap_or_else(|error| panic!("{error}"))
}

fn trusting(certificates: &Certificates) -> KafkaTls {
    KafkaTls { ca_file: Some(certificates.ca()), client: None }
}

fn showing(shown: &Certificates) -> Option<KafkaClientCertificate> {
    Some(KafkaClientCertificate { certificate_file: shown.client(), key_file: shown.client_key() })
}

fn login(mechanism: SaslMechanism, user: &str, password: &str) -> Option<KafkaLogin> {
    Some(KafkaLogin { mechanism, user: user.to_owned(), password: password.to_owned() })
}

/// Settings of a client that is soon told.
fn protected(brokers: &str, security: KafkaSecurity) -> KafkaSettings {
    KafkaSettings { request_timeout_ms: 2_000, delivery_timeout_ms: 2_000, security, ..KafkaSettings::new(brokers) }
}

/// Asks until the reason is told, which a busy machine may hear of only after the first call has given up.
async fn assert_refused(brokers: &str, security: KafkaSecurity, reason: &str) {
    let log = connect(&protected(brokers, security));
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let error = log.partitions(&stream()).await.expect_err("is refused").to_string();
        assert!(!error.contains("hunter2") && error.contains(brokers), "{error}");
        if error.contains(reason) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "'{reason}' is never told, but {error}");
    }
    let failed = append(&log, &["lost"]).await;
    assert!(matches!(&failed, Err(LogError::Unavailable(text)) if text.contains(reason)), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_user_it_conforms_and_who_does_not_fit_is_refused() {
    let (ours, others) = (certificates(), certificates());
    let broker = start(KafkaOptions { tls: Some(ours.clone()), login: true, ..KafkaOptions::default() });
    let brokers = broker.bootstrap();
    let with = |mechanism| KafkaSecurity { tls: Some(trusting(&ours)), login: login(mechanism, USER, PASSWORD) };
    let open = |mechanism| connect(&KafkaSettings { security: with(mechanism), ..settings_in(brokers.clone()) });
    conformance::all(|| async { Arc::new(open(SaslMechanism::ScramSha512)) as Arc<dyn Log> }).await;
    for mechanism in [SaslMechanism::ScramSha256, SaslMechanism::Plain] {
        let log = open(mechanism);
        log.create(&stream(), 1).await.expect("creates");
        assert_eq!(append(&log, &["a"]).await.expect("appends"), [Offset(0)], "{mechanism:?}");
        assert_eq!(texts(&read(&log, 0).await), ["a"]);
    }

    let tls = || Some(trusting(&ours));
    let scram = |user, password| login(SaslMechanism::ScramSha512, user, password);
    let (wrong, untrusted) = ("it refuses the user or the password", "signed by a CA that is not trusted");
    let refusals = [
        (KafkaSecurity { tls: tls(), login: scram(USER, "not-hunter2") }, wrong),
        (KafkaSecurity { tls: tls(), login: scram("nobody", PASSWORD) }, wrong),
        (KafkaSecurity { tls: tls(), login: login(SaslMechanism::Plain, USER, "not-hunter2") }, wrong),
        (KafkaSecurity { tls: Some(trusting(&others)), login: scram(USER, PASSWORD) }, untrusted),
        // Those that this machine trusts do not know it either.
        (KafkaSecurity { tls: Some(KafkaTls::default()), login: scram(USER, PASSWORD) }, untrusted),
        (KafkaSecurity { tls: tls(), login: None }, "it may ask for a user"),
        (KafkaSecurity::default(), "it may speak TLS there"),
    ];
    let refusals = refusals.into_iter().map(|(security, reason)| assert_refused(&brokers, security, reason));
    futures::future::join_all(refusals).await;
    // Another name than those of the certificate, at the same place.
    let by_other_name = format!("[::ffff:127.0.0.1]:{}", broker.port());
    assert_refused(&by_other_name, with(SaslMechanism::ScramSha512), "is for another host").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_for_a_certificate_takes_one_of_its_ca_and_no_other() {
    let (ours, others) = (certificates(), certificates());
    let broker = start(KafkaOptions { tls: Some(ours.clone()), client_certificates: true, ..KafkaOptions::default() });
    let with = |client| KafkaSecurity { tls: Some(KafkaTls { client, ..trusting(&ours) }), login: None };
    let log = connect(&KafkaSettings { security: with(showing(&ours)), ..KafkaSettings::new(broker.bootstrap()) });
    log.create(&stream(), 1).await.expect("creates");
    append(&log, &["a"]).await.expect("appends");
    assert_eq!(texts(&read(&log, 0).await), ["a"]);
    let asks = "it asks for another certificate of this client, or for one at all";
    for client in [None, showing(&others)] {
        assert_refused(&broker.bootstrap(), with(client), asks).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_expired_is_refused() {
    let expired = Arc::new(Certificates::expired().unwrap_or_else(|error| panic!("{error}")));
    let broker = start(KafkaOptions { tls: Some(expired.clone()), ..KafkaOptions::default() });
    let security = KafkaSecurity { tls: Some(trusting(&expired)), login: None };
    assert_refused(&broker.bootstrap(), security, "its certificate has expired").await;
    // And where there is no TLS at all.
    let security = KafkaSecurity { tls: Some(KafkaTls::default()), login: None };
    assert_refused(&super::broker().bootstrap(), security, "it does not speak TLS there").await;
}
