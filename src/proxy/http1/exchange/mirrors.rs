//! Who else gets this request.

use super::super::mirror::send;
use super::super::request::Framing;
use super::{Exchange, Target};
use crate::mirror;

impl Exchange<'_> {
    /// Begins the copies that mirrors get. What asks to change the protocol is for one receiver only.
    pub(super) fn mirror(&mut self) {
        let Target::Service(route) = &mut self.target else { return };
        let mirrors = std::mem::take(&mut route.mirrors);
        if mirrors.is_empty() || self.asked.upgrade || self.asked.is_connect {
            return;
        }
        let length = match self.request.body {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::Close => None,
        };
        let asked = self.asked;
        let context = &self.connection.context;
        let copies = mirror::start(mirrors, length, context, |route, copy, context| send(route, copy, asked, context));
        self.up.begin_copies(copies);
    }
}
