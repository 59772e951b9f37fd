//! Generates the bindings from the headers of the DPDK that pkg-config finds. Without the feature: nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    if let Err(message) = dpdk::generate() {
        println!("cargo::error={message}");
    }
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::path::PathBuf;

    const PACKAGES: &str = "apt-get install dpdk libdpdk-dev libclang-dev pkg-config";
    /// What the safe layer calls; everything these mention comes along.
    const FUNCTIONS: &[&str] = &[
        "rte_eal_(init|get_runtime_dir)",
        "rte_eal_hotplug_(add|remove)",
        "rte_dev_(probe|remove)",
        "rte_strerror",
        "rte_openlog_stream",
        "rte_thread_(un)?register",
        "rte_pktmbuf_(pool_create|alloc|alloc_bulk|free|free_bulk|linearize)",
        "rte_mempool_(avail_count|in_use_count)",
        "rte_eth_dev_(info_get|configure|start|stop|close|adjust_nb_rx_tx_desc|socket_id|get_mtu|set_mtu)",
        "rte_eth_dev_(set_link_up|set_link_down|default_mac_addr_set|rss_.*)",
        "rte_eth_(rx|tx)_(queue_setup|burst|prepare)",
        "rte_eth_(macaddr_get|promiscuous_.*|allmulticast_enable|stats_.*|xstats_get.*|iterator_.*)",
        "rte_flow_destroy",
        "rte_compressdev_(get_dev_id|capability_get|info_get|configure|queue_pair_setup|start|stop)",
        "rte_compressdev_(enqueue_burst|private_xform_create|private_xform_free)",
        "rte_comp_op_(pool_create|alloc|free)",
        "rte_cryptodev_(get_dev_id|info_get|configure|queue_pair_setup|start|stop)",
        "rte_cryptodev_(enqueue_burst|sym_session_pool_create|sym_session_free)",
        "rte_cryptodev_sym_get_private_session_size",
        "rte_crypto_op_(pool_create|alloc|free)",
        "rte_mempool_free",
        "fopencookie",
        "towpath_.*",
    ];
    const TYPES: &[&str] = &["rte_(comp|crypto)_op_status"];
    /// Packed and aligned at once, or bit fields that bindgen cannot lay out; none is used.
    const OPAQUE: &[&str] = &[
        "rte_arp_hdr",
        "rte_arp_ipv4",
        "rte_l2tpv2.*",
        "rte_gtp_psc_generic_hdr",
        "rte_mbuf",
        "rte_mempool",
    ];

    pub(super) fn generate() -> Result<(), String> {
        println!("cargo::rerun-if-changed=wrapper.h");
        println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
        let library =
            pkg_config::Config::new().atleast_version("22.11").probe("libdpdk").map_err(|error| {
                let reason = error.to_string().replace('\n', " ");
                format!(
                    "the feature `dpdk` needs DPDK 22.11 or later with its headers: {PACKAGES} ({reason})"
                )
            })?;
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        let wrappers = out.join("wrappers.c");
        let include: Vec<String> =
            library.include_paths.iter().map(|path| format!("-I{}", path.display())).collect();
        let mut flags = include.clone();
        flags.extend(["-include".to_owned(), "rte_config.h".to_owned()]);
        if std::env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "x86_64") {
            // DPDK's own baseline: its inline functions use SSE 4.
            flags.push("-march=corei7".to_owned());
        }
        bind(&flags, &wrappers, &out.join("bindings.rs"))?;
        let mut compiler = cc::Build::new();
        compiler.file(&wrappers).include(env!("CARGO_MANIFEST_DIR")).warnings(false).opt_level(3);
        for flag in &flags {
            compiler.flag(flag);
        }
        compiler.try_compile("towpath_dpdk_wrappers").map_err(|error| format!("{error}"))
    }

    fn bind(flags: &[String], wrappers: &PathBuf, to: &PathBuf) -> Result<(), String> {
        let mut builder = bindgen::Builder::default()
            .header("wrapper.h")
            .clang_args(flags)
            .allowlist_var("K_.*|RTE_MAX_ETHPORTS")
            .wrap_static_fns(true)
            .wrap_unsafe_ops(true)
            .wrap_static_fns_path(wrappers)
            .generate_comments(false)
            .layout_tests(false)
            .derive_default(true)
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .use_core();
        for name in FUNCTIONS {
            builder = builder.allowlist_function(name);
        }
        for name in TYPES {
            builder = builder.allowlist_type(name);
        }
        for name in OPAQUE {
            builder = builder.opaque_type(name);
        }
        // bindgen panics where it cannot load libclang.
        let generated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()))
            .map_err(|_| format!("the feature `dpdk` needs libclang to read DPDK's headers: {PACKAGES}"))?;
        let bindings = generated.map_err(|error| format!("DPDK's headers could not be read: {error}"))?;
        bindings.write_to_file(to).map_err(|error| format!("{}: {error}", to.display()))
    }
}
