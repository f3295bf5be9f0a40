//! Which fields of which kind are handed on, by the numbers they have in Kubernetes' `generated.proto` files
//! (<https://github.com/kubernetes/api>). They are what [`leno_api::k8s`] keeps, and what watching needs; numbers of fields never change.

use self::Form::{Flag, Map, Message, Number, NumberOrText, Presence, Text};

/// The paths of the kinds below.
const PATHS: [&str; 3] = ["/api/v1/pods", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"];

/// Whether objects at `path` have a schema here.
pub(super) fn is_path(path: &str) -> bool {
    PATHS.contains(&path)
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its name in JSON.
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) is_list: bool,
}

/// How a field is written in JSON.
#[derive(Debug)]
pub(super) enum Form {
    /// A string.
    Text,
    /// A number; 0 is left out, as it is for fields that are not there.
    Number,
    /// A boolean.
    Flag,
    /// `true` where there is something, whatever it is.
    Presence,
    /// A map of strings, with the keys for which this holds.
    Map(fn(&str) -> bool),
    /// An `IntOrString`.
    NumberOrText,
    /// A message with these fields.
    Message(&'static [Field]),
}

const fn one(number: u32, name: &'static str, form: Form) -> Field {
    Field { number, name, form, is_list: false }
}

const fn list(number: u32, name: &'static str, form: Form) -> Field {
    Field { number, name, form, is_list: true }
}

/// The fields of the objects of `kind`; of others, which come only as the bookmarks and errors of a watch, what those have.
pub(super) fn fields_of(kind: &str) -> &'static [Field] {
    match kind {
        "Pod" => POD,
        "Service" => SERVICE,
        "EndpointSlice" => SLICE,
        "Status" => STATUS,
        _ => OTHER,
    }
}

/// Whether an annotation is Leno's, or says that a watch's first list is whole.
fn is_ours(annotation: &str) -> bool {
    annotation.starts_with("leno.dev/") || annotation == "k8s.io/initial-events-end"
}

const METADATA: Field = one(1, "metadata", Message(META));
const META: &[Field] = &[
    one(1, "name", Text),
    one(3, "namespace", Text),
    one(5, "uid", Text),
    one(6, "resourceVersion", Text),
    one(7, "generation", Number),
    one(9, "deletionTimestamp", Presence),
    one(11, "labels", Map(|_| true)),
    one(12, "annotations", Map(is_ours)),
    list(13, "ownerReferences", Message(&[one(1, "kind", Text), one(3, "name", Text)])),
];

const OTHER: &[Field] = &[METADATA];
const STATUS: &[Field] = &[one(2, "status", Text), one(3, "message", Text), one(4, "reason", Text), one(6, "code", Number)];

const POD: &[Field] = &[METADATA, one(2, "spec", Message(POD_SPEC)), one(3, "status", Message(POD_STATUS))];
const POD_SPEC: &[Field] = &[
    one(8, "serviceAccountName", Text),
    one(10, "nodeName", Text),
    one(11, "hostNetwork", Flag),
    list(2, "containers", Message(CONTAINER)),
    list(20, "initContainers", Message(CONTAINER)),
];
const CONTAINER: &[Field] =
    &[one(24, "restartPolicy", Text), list(6, "ports", Message(&[one(1, "name", Text), one(3, "containerPort", Number)]))];
const POD_STATUS: &[Field] = &[one(1, "phase", Text), one(6, "podIP", Text), list(12, "podIPs", Message(&[one(1, "ip", Text)]))];

const SERVICE: &[Field] = &[METADATA, one(2, "spec", Message(SERVICE_SPEC))];
const SERVICE_SPEC: &[Field] = &[
    list(1, "ports", Message(SERVICE_PORT)),
    one(2, "selector", Map(|_| true)),
    one(3, "clusterIP", Text),
    list(18, "clusterIPs", Text),
    one(4, "type", Text),
    one(10, "externalName", Text),
    one(13, "publishNotReadyAddresses", Flag),
];
const SERVICE_PORT: &[Field] = &[
    one(1, "name", Text),
    one(2, "protocol", Text),
    one(3, "port", Number),
    one(4, "targetPort", NumberOrText),
    one(6, "appProtocol", Text),
];

const SLICE: &[Field] =
    &[METADATA, one(4, "addressType", Text), list(2, "endpoints", Message(ENDPOINT)), list(3, "ports", Message(SLICE_PORT))];
const ENDPOINT: &[Field] = &[
    list(1, "addresses", Text),
    one(2, "conditions", Message(&[one(1, "ready", Flag), one(2, "serving", Flag), one(3, "terminating", Flag)])),
    one(4, "targetRef", Message(&[one(1, "kind", Text), one(3, "name", Text)])),
    one(6, "nodeName", Text),
    one(7, "zone", Text),
];
const SLICE_PORT: &[Field] = &[one(1, "name", Text), one(2, "protocol", Text), one(3, "port", Number), one(4, "appProtocol", Text)];
