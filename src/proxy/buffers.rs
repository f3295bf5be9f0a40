//! Buffers that a worker's connections share: taken when bytes are there, given back when a connection rests.
//!
//! A [`Buffer`] is one block with a kept prefix (a message's head, whose parts are remembered by place) and, after it,
//! the bytes that were read and not yet used.

use std::cell::RefCell;
use std::mem;
use std::ops::Range;
use std::rc::Rc;

/// Size of a block: holds nearly every head, and a small message whole.
pub const BLOCK: usize = 16 * 1024;
/// Size of a block for long bodies: fewer system calls per byte.
pub const LARGE_BLOCK: usize = 64 * 1024;
/// Blocks of each size that a worker keeps while nobody uses them.
const SPARE_BLOCKS: usize = 32;

/// A worker's blocks.
#[derive(Default)]
pub struct Buffers {
    blocks: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
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
        let bytes = self.blocks.borrow_mut().pop().unwrap_or_else(|| vec![0; BLOCK]);
        Buffer { bytes, kept: 0, start: 0, end: 0, home: Rc::clone(self) }
    }

    /// An empty buffer of [`LARGE_BLOCK`] bytes.
    pub fn take_large(self: &Rc<Self>) -> Buffer {
        let bytes = self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE_BLOCK]);
        Buffer { bytes, kept: 0, start: 0, end: 0, home: Rc::clone(self) }
    }

    /// Frees the blocks nobody uses.
    pub fn trim(&self) {
        self.blocks.borrow_mut().clear();
        self.large.borrow_mut().clear();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let shelf = match self.bytes.len() {
            BLOCK => &self.home.blocks,
            LARGE_BLOCK => &self.home.large,
            _ => return,
        };
        let mut shelf = shelf.borrow_mut();
        if shelf.len() < SPARE_BLOCKS {
            shelf.push(mem::take(&mut self.bytes));
        }
    }
}

impl Buffer {
    /// The bytes read and not yet used.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
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
        let end = self.end + bytes.len();
        if end > self.bytes.len() {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
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
        assert_eq!(buffers.blocks.borrow().len(), 1);
        let mut grown = buffers.take();
        grown.append(&vec![1; 3 * BLOCK]);
        drop(grown);
        assert_eq!(buffers.blocks.borrow().len(), 0);
    }
}
