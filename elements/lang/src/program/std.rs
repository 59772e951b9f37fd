//! The standard elements, as they stand in `elements/std`.

/// Name and text of each.
pub(crate) const ELEMENTS: &[(&str, &str)] = &[
    ("LoadBalancing", include_str!("../../../std/LoadBalancing.adn")),
    ("Logging", include_str!("../../../std/Logging.adn")),
    ("Metrics", include_str!("../../../std/Metrics.adn")),
    ("Compression", include_str!("../../../std/Compression.adn")),
    ("Encryption", include_str!("../../../std/Encryption.adn")),
    ("Decryption", include_str!("../../../std/Decryption.adn")),
    ("FaultInjection", include_str!("../../../std/FaultInjection.adn")),
    ("BandwidthLimit", include_str!("../../../std/BandwidthLimit.adn")),
    ("Firewall", include_str!("../../../std/Firewall.adn")),
    ("Mutation", include_str!("../../../std/Mutation.adn")),
    ("StreamLimit", include_str!("../../../std/StreamLimit.adn")),
    ("RateLimit", include_str!("../../../std/RateLimit.adn")),
    ("AdmissionControl", include_str!("../../../std/AdmissionControl.adn")),
    ("ConcurrencyLimit", include_str!("../../../std/ConcurrencyLimit.adn")),
    ("AdaptiveConcurrency", include_str!("../../../std/AdaptiveConcurrency.adn")),
    ("CircuitBreaker", include_str!("../../../std/CircuitBreaker.adn")),
    ("StickyRouting", include_str!("../../../std/StickyRouting.adn")),
    ("Prequal", include_str!("../../../std/Prequal.adn")),
    ("Split", include_str!("../../../std/Split.adn")),
    ("ServiceRouter", include_str!("../../../std/ServiceRouter.adn")),
    ("Delay", include_str!("../../../std/Delay.adn")),
    ("Timeout", include_str!("../../../std/Timeout.adn")),
    ("Null", include_str!("../../../std/Null.adn")),
];
