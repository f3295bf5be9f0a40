//! Mirrors ↔ bytes.

use leno_core::mirror::Mirror;
use leno_core::percentage::Percentage;
use leno_core::route::Target;

use crate::decode::{DecodeError, port};
use crate::wire::leno as wire;
use wire::mirror::Target as To;

pub(crate) fn encode(mirror: &Mirror) -> wire::Mirror {
    let target = match &mirror.target {
        Target::Version(version) => To::Version(version.to_string()),
        Target::Missing(what) => To::Missing(what.to_string()),
        Target::Service { service, port } => To::Service(wire::OtherService { id: service.to_string(), port: port.map(u32::from) }),
    };
    wire::Mirror { millionths: mirror.percentage.millionths(), target: Some(target) }
}

pub(crate) fn decode(message: wire::Mirror) -> Result<Mirror, DecodeError> {
    let target = match message.target.ok_or(DecodeError::Unknown("kind of mirror"))? {
        To::Version(version) => Target::Version(version.into()),
        To::Missing(what) => Target::Missing(what.into()),
        To::Service(other) => Target::Service { service: other.id.parse()?, port: other.port.map(port).transpose()? },
    };
    Ok(Mirror { target, percentage: Percentage::from_millionths(message.millionths)? })
}
