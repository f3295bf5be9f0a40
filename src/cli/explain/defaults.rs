//! What the mesh does where no object says: what the controller's flags say, unless the command line says otherwise.

use clap::{Args, Parser, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use leno_controller::settings::Settings;
use leno_core::authorize::{Mode, Posture};
use leno_core::names::Name;
use leno_translate::Defaults;

use super::CLUSTER_DOMAIN;
use crate::cluster::Where;

/// What the command line says.
#[derive(Args, Clone, Debug)]
pub(super) struct Assumed {
    /// Domain of cluster host names [default: as the controller has it, else cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,
    /// Trust domain of the mesh [default: as the controller has it, else cluster.local]
    #[arg(long, value_name = "TRUST-DOMAIN")]
    trust_domain: Option<Name>,
    /// Whether callers must prove who they are, where no SecurityPolicy says [default: as the controller has it, else Permissive]
    #[arg(long, value_enum, ignore_case = true)]
    mtls_mode: Option<AssumedMode>,
    /// Whether callers that no SecurityPolicy speaks of may pass [default: as the controller has it, else Allow]
    #[arg(long, value_enum, ignore_case = true)]
    authorization_default: Option<AssumedPosture>,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum AssumedMode {
    Permissive,
    Strict,
    Disabled,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum AssumedPosture {
    Allow,
    Deny,
}

impl Assumed {
    /// Where there is no controller to ask.
    pub(super) fn alone(&self) -> Defaults {
        self.over(Defaults::new(CLUSTER_DOMAIN))
    }

    /// What the command line says, else what `defaults` say.
    pub(super) fn over(&self, defaults: Defaults) -> Defaults {
        Defaults {
            cluster_domain: self.cluster_domain.as_deref().map_or(defaults.cluster_domain, Name::from),
            trust_domain: self.trust_domain.clone().unwrap_or(defaults.trust_domain),
            mode: self.mtls_mode.map_or(defaults.mode, |mode| match mode {
                AssumedMode::Permissive => Mode::Permissive,
                AssumedMode::Strict => Mode::Strict,
                AssumedMode::Disabled => Mode::Disabled,
            }),
            posture: self.authorization_default.map_or(defaults.posture, |posture| match posture {
                AssumedPosture::Allow => Posture::Allow,
                AssumedPosture::Deny => Posture::Deny,
            }),
            ..defaults
        }
    }
}

/// What the flags of one of the controller's pods say; `None` when none of them has flags that this version knows.
pub(super) fn of_controller(pods: &[Pod]) -> Option<Defaults> {
    let containers = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
    containers.filter_map(|container| container.args.as_ref()).find_map(|flags| {
        let line = ["leno-controller".to_owned()].into_iter().chain(flags.iter().cloned());
        Settings::try_parse_from(line).ok().map(|settings| settings.defaults())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(flags: &[&str]) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "controller", "args": flags}]}})).unwrap()
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        assumed: Assumed,
    }

    #[test]
    fn the_controller_s_flags_hold_and_the_command_line_outweighs_them() {
        let flags = ["--cluster-domain=corp", "--trust-domain=example.org", "--mtls-mode=Strict", "--authorization-default=Deny"];
        let defaults = of_controller(&[pod(&["--flag-of-a-later-version"]), pod(&flags)]).unwrap();
        assert_eq!((&*defaults.cluster_domain, &*defaults.trust_domain), ("corp", "example.org"));
        assert_eq!((defaults.mode, defaults.posture), (Mode::Strict, Posture::Deny));
        let line = Line::parse_from(["leno", "--trust-domain=other.org", "--mtls-mode=Disabled", "--authorization-default=Allow"]);
        let over = line.assumed.over(defaults);
        assert_eq!((&*over.cluster_domain, &*over.trust_domain), ("corp", "other.org"));
        assert_eq!((over.mode, over.posture), (Mode::Disabled, Posture::Allow));
        assert_eq!(Line::parse_from(["leno"]).assumed.alone(), Defaults::new("cluster.local"));
        assert_eq!(of_controller(&[]), None);
    }
}
