//! Why the redirect rules could not be programmed, and what to do about it.

use std::io;

/// Why [`apply`](super::apply) failed. The rules are then what they were before.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The kernel does not let this process change the rules.
    #[error(
        "programming the redirect rules needs NET_ADMIN: run the init container as root (runAsUser: 0, \
         runAsNonRoot: false) with securityContext.capabilities.add: [NET_ADMIN]"
    )]
    NotPermitted,
    /// The kernel has no nf_tables at all.
    #[error("this node's kernel has no nf_tables: load the kernel modules nf_tables, nft_chain_nat and nft_redir on the node")]
    NoNfTables,
    /// The kernel has nf_tables, but not what this step needs.
    #[error(
        "this node's kernel cannot add the {step}: Linux 5.2 or newer with the kernel modules nft_chain_nat and \
         nft_redir is needed; load them on the node"
    )]
    MissingFeature {
        /// What was being added.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused this step for another reason.
    #[error("the kernel refused the {step} of the redirect rules")]
    Refused {
        /// What was being added.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not answer every step within the time.
    #[error("the kernel left {unanswered} steps of the redirect rules unanswered; look at the node's kernel log")]
    NoAnswer {
        /// How many steps were left.
        unanswered: usize,
    },
    /// The kernel's answer is not netlink.
    #[error("the kernel's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The netlink socket itself failed.
    #[error("{doing} failed")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}
