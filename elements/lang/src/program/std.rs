//! The standard elements, as they stand in `elements/std`.

/// Name and text of each.
pub(crate) const ELEMENTS: [(&str, &str); 7] = [
    ("LoadBalancing", include_str!("../../../std/LoadBalancing.adn")),
    ("Logging", include_str!("../../../std/Logging.adn")),
    ("Compression", include_str!("../../../std/Compression.adn")),
    ("FaultInjection", include_str!("../../../std/FaultInjection.adn")),
    ("Firewall", include_str!("../../../std/Firewall.adn")),
    ("Mutation", include_str!("../../../std/Mutation.adn")),
    ("StreamLimit", include_str!("../../../std/StreamLimit.adn")),
];
