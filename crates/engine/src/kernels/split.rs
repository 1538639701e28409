//! How the rows and panels of a matrix product are divided into tasks.

use std::ops::Range;

/// Bytes of packed rows that a task works on: they stay in a core's second-level cache while all panels pass.
const ROW_BLOCK_BYTES: usize = 512 << 10;

/// Rows come in strips, columns in panels; a task takes whole ones.
pub(crate) struct Split {
    rows: usize,
    rows_per_task: usize,
    row_tasks: usize,
    panels: usize,
    panels_per_task: usize,
    panel_tasks: usize,
}

/// The packed strips of one operand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strips {
    /// Rows of a strip.
    pub(crate) height: usize,
    /// Bytes of a strip.
    pub(crate) bytes: usize,
}

impl Split {
    /// Divides `rows` and `panels` among `threads`.
    pub(crate) fn new(rows: usize, strip: Strips, panels: usize, threads: usize) -> Self {
        let strips = rows.div_ceil(strip.height).max(1);
        let most = (ROW_BLOCK_BYTES / strip.bytes).max(1);
        let blocks = strips.div_ceil(most).next_multiple_of(threads).min(strips);
        let rows_per_task = strips.div_ceil(blocks) * strip.height;
        let row_tasks = rows.div_ceil(rows_per_task);
        let panels_per_task = panels.div_ceil(threads.div_ceil(row_tasks.max(1)).min(panels));
        let panel_tasks = panels.div_ceil(panels_per_task);
        Self { rows, rows_per_task, row_tasks, panels, panels_per_task, panel_tasks }
    }

    /// Number of tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.row_tasks * self.panel_tasks
    }

    /// The rows and panels of a task; the first row starts a strip.
    pub(crate) fn task(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let (row, panel) = (index / self.panel_tasks, index % self.panel_tasks);
        let (row, panel) = (row * self.rows_per_task, panel * self.panels_per_task);
        (
            row..(row + self.rows_per_task).min(self.rows),
            panel..(panel + self.panels_per_task).min(self.panels),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_panel_once() {
        for (rows, panels, threads, bytes) in
            [(1, 1, 1, 100), (1, 7, 3, 9), (100, 5, 2, 80_000), (29, 3, 4, 600_000), (0, 2, 2, 64)]
        {
            let split = Split::new(rows, Strips { height: 14, bytes }, panels, threads);
            let mut met = vec![0; rows * panels];
            for task in 0..split.tasks() {
                let (rows, in_panels) = split.task(task);
                assert!(rows.start.is_multiple_of(14) && !rows.is_empty() && !in_panels.is_empty());
                for row in rows {
                    in_panels.clone().for_each(|panel| met[row * panels + panel] += 1);
                }
            }
            assert!(met.iter().all(|&met| met == 1), "{rows} rows, {panels} panels, {threads} threads");
        }
    }
}
