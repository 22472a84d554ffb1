//! The GPU block pool: reference counts, an LRU free list and the prefix cache.

use std::collections::HashMap;

use super::hash::mix;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Block {
    refs: u32,
    /// Key under which the prefix cache finds this block.
    hash: Option<u64>,
    /// Stand-in for the KV bytes in the block.
    content: u64,
    prev: u32,
    next: u32,
}

/// All KV blocks of the GPU.
///
/// Free blocks keep their contents and stay findable until they are handed out again, least
/// recently freed first.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    by_hash: HashMap<u64, u32>,
    head: u32,
    tail: u32,
    free: usize,
}

impl BlockPool {
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let mut pool = Self {
            blocks: Vec::with_capacity(count),
            by_hash: HashMap::new(),
            head: NONE,
            tail: NONE,
            free: 0,
        };
        for index in 0..count {
            let content = mix(mix(seed, 0x6d65_6d6f), index as u64);
            pool.blocks.push(Block {
                refs: 0,
                hash: None,
                content,
                prev: NONE,
                next: NONE,
            });
            pool.push_free(index as u32);
        }
        pool
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// The longest run of cached blocks that starts `hashes`.
    pub(crate) fn find_prefix(&self, hashes: &[u64]) -> Vec<u32> {
        hashes
            .iter()
            .map_while(|hash| self.by_hash.get(hash).copied())
            .collect()
    }

    /// How many of `blocks` sit in the free list now.
    pub(crate) fn count_free(&self, blocks: &[u32]) -> usize {
        blocks
            .iter()
            .filter(|&&block| self.blocks[block as usize].refs == 0)
            .count()
    }

    /// Takes one more reference to a cached block.
    pub(crate) fn acquire(&mut self, block: u32) {
        if self.blocks[block as usize].refs == 0 {
            self.unlink(block);
        }
        self.blocks[block as usize].refs += 1;
    }

    /// Takes the least recently freed block; whatever it cached is forgotten, its bytes stay.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let block = self.head;
        if block == NONE {
            return None;
        }
        self.unlink(block);
        let slot = &mut self.blocks[block as usize];
        slot.refs = 1;
        if let Some(hash) = slot.hash.take() {
            self.by_hash.remove(&hash);
        }
        Some(block)
    }

    /// Gives one reference back.
    pub(crate) fn release(&mut self, block: u32) {
        let slot = &mut self.blocks[block as usize];
        slot.refs -= 1;
        if slot.refs == 0 {
            self.push_free(block);
        }
    }

    pub(crate) fn content(&self, block: u32) -> u64 {
        self.blocks[block as usize].content
    }

    /// Whether any block has `content`.
    pub(crate) fn has_content(&self, content: u64) -> bool {
        self.blocks.iter().any(|block| block.content == content)
    }

    pub(crate) fn set_content(&mut self, block: u32, content: u64) {
        self.blocks[block as usize].content = content;
    }

    /// Makes a full block findable, unless another block already is under `hash`.
    pub(crate) fn publish(&mut self, block: u32, hash: u64) {
        if self.blocks[block as usize].hash.is_none() && !self.by_hash.contains_key(&hash) {
            self.blocks[block as usize].hash = Some(hash);
            self.by_hash.insert(hash, block);
        }
    }

    /// Forgets every cached block; refused while any block is in use.
    pub(crate) fn reset(&mut self) -> Result<(), BlocksInUse> {
        if self.free != self.blocks.len() {
            return Err(BlocksInUse);
        }
        self.by_hash.clear();
        for block in &mut self.blocks {
            block.hash = None;
        }
        Ok(())
    }

    fn push_free(&mut self, block: u32) {
        let tail = self.tail;
        let slot = &mut self.blocks[block as usize];
        (slot.prev, slot.next) = (tail, NONE);
        match tail {
            NONE => self.head = block,
            tail => self.blocks[tail as usize].next = block,
        }
        self.tail = block;
        self.free += 1;
    }

    fn unlink(&mut self, block: u32) {
        let Block { prev, next, .. } = self.blocks[block as usize];
        match prev {
            NONE => self.head = next,
            prev => self.blocks[prev as usize].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => self.blocks[next as usize].prev = prev,
        }
        self.free -= 1;
    }
}

/// The prefix cache cannot be reset while requests hold blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlocksInUse;

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pool: &mut BlockPool, hash: u64) -> u32 {
        let block = pool.allocate().unwrap();
        pool.publish(block, hash);
        block
    }

    #[test]
    fn the_least_recently_freed_block_goes_first() {
        let mut pool = BlockPool::new(3, 0);
        let blocks: Vec<u32> = (1..=3).map(|hash| take(&mut pool, hash)).collect();
        assert_eq!(pool.allocate(), None, "the pool is full");
        for block in [blocks[1], blocks[0], blocks[2]] {
            pool.release(block);
        }
        pool.acquire(blocks[1]); // a hit takes it out of the free list
        assert_eq!(
            pool.allocate(),
            Some(blocks[0]),
            "block 1 was freed first but is in use again"
        );
        assert_eq!(
            pool.find_prefix(&[1]),
            Vec::<u32>::new(),
            "handed out, so forgotten"
        );
        assert_eq!(pool.find_prefix(&[2]), vec![blocks[1]]);
        assert_eq!(
            pool.find_prefix(&[3, 1, 2]),
            vec![blocks[2]],
            "a run ends at the first miss"
        );
    }

    #[test]
    fn reset_is_refused_while_blocks_are_in_use() {
        let mut pool = BlockPool::new(2, 0);
        let block = take(&mut pool, 7);
        assert_eq!(pool.reset(), Err(BlocksInUse));
        pool.release(block);
        assert_eq!(
            pool.find_prefix(&[7]),
            vec![block],
            "a freed block is still cached"
        );
        assert_eq!(pool.reset(), Ok(()));
        assert!(pool.find_prefix(&[7]).is_empty());
    }

    #[test]
    fn a_block_keeps_its_bytes_until_they_are_overwritten() {
        let mut pool = BlockPool::new(1, 0);
        let block = pool.allocate().unwrap();
        pool.set_content(block, 42);
        pool.release(block);
        let again = pool.allocate().unwrap();
        assert_eq!(pool.content(again), 42);
    }
}
