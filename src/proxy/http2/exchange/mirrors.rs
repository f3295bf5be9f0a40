//! Who else gets this request.

use http::header::CONTENT_LENGTH;

use super::super::mirror::send;
use super::{Exchange, Target};
use crate::mirror;

impl Exchange {
    /// Begins the copies that mirrors get. What asks to change the protocol is for one receiver only.
    pub(super) fn mirror(&mut self) {
        let Target::Service(route) = &mut self.target else { return };
        let mirrors = std::mem::take(&mut route.mirrors);
        if mirrors.is_empty() || self.head.protocol.is_some() {
            return;
        }
        let length = self.head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let head = &self.head;
        let copies =
            mirror::start(mirrors, length, &self.client.context, |route, copy, context| send(route, copy, head.request(false), context));
        self.up.begin_copies(copies);
    }
}
