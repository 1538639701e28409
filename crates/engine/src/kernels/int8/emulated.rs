//! Tiles as the instruction set manual describes them, in scalar code.

use super::amx::{TileConfiguration, Tiles};

const TILES: usize = 8;
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// Eight tiles and their sizes. Whatever the processor would raise an exception for panics.
pub(super) struct EmulatedTiles {
    rows: [usize; TILES],
    row_bytes: [usize; TILES],
    tiles: [[[u8; ROW_BYTES]; ROWS]; TILES],
}

impl EmulatedTiles {
    fn word(&self, tile: usize, row: usize, column: usize) -> [u8; 4] {
        self.tiles[tile][row].as_chunks().0[column]
    }
}

impl Tiles for EmulatedTiles {
    fn configure(depth: usize) -> Self {
        let TileConfiguration(bytes) = TileConfiguration::new(depth);
        assert!(bytes[0] == 1 && bytes[1] == 0 && bytes[2..16].iter().all(|&byte| byte == 0));
        let row_bytes =
            std::array::from_fn(|tile| bytes[16 + 2 * tile] as usize + 256 * bytes[17 + 2 * tile] as usize);
        let rows = std::array::from_fn(|tile| bytes[48 + tile] as usize);
        assert!(row_bytes.iter().all(|&bytes| (1..=ROW_BYTES).contains(&bytes)));
        assert!(rows.iter().all(|&rows| (1..=ROWS).contains(&rows)));
        assert!(bytes[32..48].iter().chain(&bytes[56..]).all(|&byte| byte == 0));
        // Tiles hold zeros once they are configured; here what no program may count on.
        Self { rows, row_bytes, tiles: [[[0xa5; ROW_BYTES]; ROWS]; TILES] }
    }

    fn zero<const T: u8>(&mut self) {
        self.tiles[T as usize] = [[0; ROW_BYTES]; ROWS];
    }

    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        let tile = T as usize;
        self.tiles[tile] = [[0; ROW_BYTES]; ROWS];
        for row in 0..self.rows[tile] {
            let len = self.row_bytes[tile];
            // SAFETY: the caller vouches for all rows of the tile.
            let from = unsafe { std::slice::from_raw_parts(from.add(row * stride), len) };
            self.tiles[tile][row][..len].copy_from_slice(from);
        }
    }

    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        let tile = T as usize;
        for row in 0..self.rows[tile] {
            let from = &self.tiles[tile][row][..self.row_bytes[tile]];
            // SAFETY: the caller vouches for all rows of the tile.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.add(row * stride), from.len()) };
        }
    }

    fn dot<const SUMS: u8, const LEFT: u8, const RIGHT: u8>(&mut self) {
        let [sums, left, right] = [SUMS, LEFT, RIGHT].map(usize::from);
        assert!(sums != left && sums != right && left != right);
        assert_eq!(self.rows[sums], self.rows[left]);
        assert_eq!(self.row_bytes[sums], self.row_bytes[right]);
        assert_eq!(self.row_bytes[left], self.rows[right] * 4);
        for row in 0..self.rows[sums] {
            for column in 0..self.row_bytes[sums] / 4 {
                let mut sum = i32::from_le_bytes(self.word(sums, row, column));
                for k in 0..self.rows[right] {
                    let (a, b) = (self.word(left, row, k), self.word(right, k, column));
                    for (a, b) in a.into_iter().zip(b) {
                        sum = sum.wrapping_add(i32::from(a.cast_signed()) * i32::from(b.cast_signed()));
                    }
                }
                self.tiles[sums][row][column * 4..][..4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}
