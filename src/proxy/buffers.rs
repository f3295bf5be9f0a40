//! Buffers that a worker's connections share: taken when bytes are there, given back when a connection rests.
//!
//! A [`Buffer`] is one block with a kept prefix (a message's head, whose parts are remembered by place) and, after it,
//! the bytes that were read and not yet used.

use std::cell::{Cell, RefCell};
use std::mem;
use std::ops::Range;
use std::rc::Rc;

/// Size of a block: holds nearly every head, and a small message whole.
pub const BLOCK: usize = 16 * 1024;
/// Size of a block for long bodies: fewer system calls per byte.
pub const LARGE_BLOCK: usize = 64 * 1024;
/// Bytes of each size of block that a worker keeps while nobody uses them: what thousands of requests at once have needed, for as
/// long as they are needed again and again.
const SPARE_BYTES: usize = 8 * 1024 * 1024;

/// A worker's blocks.
#[derive(Default)]
pub struct Buffers {
    blocks: Shelf<BLOCK>,
    large: Shelf<LARGE_BLOCK>,
}

/// Blocks of one size that nobody uses. What was used last is used next, because it is still in the processor's caches.
#[derive(Default)]
struct Shelf<const SIZE: usize> {
    blocks: RefCell<Vec<Vec<u8>>>,
    /// The least that were here since the last [`Shelf::trim`]: nobody has needed these.
    least: Cell<usize>,
}

/// One block in use. Goes back to its worker when dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    kept: usize,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Buffers {
    /// An empty buffer of [`BLOCK`] bytes.
    pub fn take(self: &Rc<Self>) -> Buffer {
        let bytes = self.blocks.take();
        Buffer { bytes, kept: 0, start: 0, end: 0, home: Rc::clone(self) }
    }

    /// An empty buffer of [`LARGE_BLOCK`] bytes.
    pub fn take_large(self: &Rc<Self>) -> Buffer {
        let bytes = self.large.take();
        Buffer { bytes, kept: 0, start: 0, end: 0, home: Rc::clone(self) }
    }

    /// Frees the blocks that nobody has used since it was called last. To be called now and then.
    pub fn trim(&self) {
        self.blocks.trim();
        self.large.trim();
    }
}

impl<const SIZE: usize> Shelf<SIZE> {
    fn take(&self) -> Vec<u8> {
        let mut blocks = self.blocks.borrow_mut();
        let block = blocks.pop().unwrap_or_else(|| vec![0; SIZE]);
        self.least.set(self.least.get().min(blocks.len()));
        block
    }

    fn give(&self, block: &mut Vec<u8>) {
        let mut blocks = self.blocks.borrow_mut();
        if (blocks.len() + 1) * SIZE <= SPARE_BYTES {
            blocks.push(mem::take(block));
        }
    }

    fn trim(&self) {
        let mut blocks = self.blocks.borrow_mut();
        let unused = self.least.get().min(blocks.len());
        blocks.drain(..unused);
        self.least.set(blocks.len());
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.bytes.len() {
            BLOCK => self.home.blocks.give(&mut self.bytes),
            LARGE_BLOCK => self.home.large.give(&mut self.bytes),
            // It has grown: it is freed.
            _ => {}
        }
    }
}

impl Buffer {
    /// The bytes read and not yet used.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to change them where they are.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// The whole block by place: what [`Buffer::keep`] kept stays where it was.
    pub fn block(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the unused bytes begin in [`Buffer::block`].
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many bytes are read and not yet used.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether every byte is used.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room for at least one more byte; unused bytes move to make it, kept ones never do.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.bytes.len() {
            if self.start > self.kept {
                self.bytes.copy_within(self.start..self.end, self.kept);
                self.end -= self.start - self.kept;
                self.start = self.kept;
            } else {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// How many bytes there is room for without moving or growing anything.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Room for at least `count` more bytes, growing where needed.
    pub fn reserve(&mut self, count: usize) {
        if self.room() < count {
            self.bytes.resize((self.end + count).next_power_of_two(), 0);
        }
    }

    /// `count` bytes of [`Buffer::spare`] have been filled.
    pub fn fill(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len(), "more was filled than there was room");
    }

    /// The first `count` unused bytes are used.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more was used than there was");
        if self.start >= self.end {
            (self.start, self.end) = (self.kept, self.kept);
        }
    }

    /// The first `count` unused bytes are used and stay in place until [`Buffer::release`]. Returns where they are.
    pub fn keep(&mut self, count: usize) -> Range<usize> {
        let range = self.start..self.start + count;
        self.kept = range.end;
        self.consume(count);
        range
    }

    /// Nothing needs to be kept any more.
    pub fn release(&mut self) {
        self.kept = 0;
        self.consume(0);
    }

    /// Appends `bytes`, growing where needed.
    pub fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.end + bytes.len();
        self.bytes[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Moves the unused bytes to the front, if they are far from it: before a head is read into the rest.
    pub fn compact(&mut self) {
        if self.kept == 0 && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Forgets every byte.
    pub fn clear(&mut self) {
        (self.kept, self.start, self.end) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.spare()[..bytes.len()].copy_from_slice(bytes);
        buffer.fill(bytes.len());
    }

    #[test]
    fn a_kept_head_stays_in_place_while_the_rest_is_used_and_refilled() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.take();
        read(&mut buffer, b"headbody");
        let head = buffer.keep(4);
        assert_eq!(buffer.filled(), b"body");
        buffer.consume(4);
        for _ in 0..3 {
            let room = buffer.spare().len();
            buffer.fill(room);
            assert_eq!(buffer.len(), BLOCK - 4, "the room behind the head is used again and again");
            buffer.consume(room);
        }
        assert_eq!(&buffer.block()[head], b"head");
        buffer.release();
        assert_eq!(buffer.spare().len(), BLOCK);
    }

    #[test]
    fn a_full_buffer_moves_what_is_unused_before_it_grows() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.take();
        buffer.fill(BLOCK);
        buffer.consume(BLOCK - 2);
        assert_eq!(buffer.spare().len(), BLOCK - 2);
        buffer.fill(BLOCK - 2);
        assert_eq!(buffer.spare().len(), BLOCK, "nothing to move, so it has grown");
    }

    #[test]
    fn blocks_come_back_and_grown_ones_are_freed() {
        let buffers = Rc::new(Buffers::default());
        drop(buffers.take());
        assert_eq!(buffers.blocks.blocks.borrow().len(), 1);
        let mut grown = buffers.take();
        grown.append(&vec![1; 3 * BLOCK]);
        drop(grown);
        assert_eq!(buffers.blocks.blocks.borrow().len(), 0);
    }

    #[test]
    fn what_is_used_again_stays_and_what_nobody_has_used_is_freed() {
        let buffers = Rc::new(Buffers::default());
        let spare = || buffers.blocks.blocks.borrow().len();
        let use_at_once = |count: usize| drop((0..count).map(|_| buffers.take()).collect::<Vec<_>>());
        use_at_once(100);
        buffers.trim();
        assert_eq!(spare(), 100, "all were used");
        use_at_once(10);
        buffers.trim();
        assert_eq!(spare(), 10);
        buffers.trim();
        assert_eq!(spare(), 0);
        use_at_once(SPARE_BYTES / BLOCK + 1);
        assert_eq!(spare(), SPARE_BYTES / BLOCK, "not without a bound");
    }
}
