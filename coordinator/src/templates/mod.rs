//! Chat templates of strangers, rendered in processes of their own.
//!
//! A template is a program: it may compare for hours what its engine does not count, or be so deep that reading it ends
//! the process. So it is read and rendered by a child of this one, which is the same program again. The child has no
//! environment, no descriptors besides its pipes, and limits on memory, files and the time of its processor; it keeps
//! nothing between two tasks. What ends a child, or does not end in time, is the template's fault and costs nobody else
//! anything: the child is replaced, and the template rests for a while.

mod child;
mod serve;
mod wire;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gainsay_commitment::TensorCommitment;
use gainsay_text::{ChatMessage, TemplateError, UnixSeconds};
use tokio::sync::Semaphore;

use child::{Ended, Renderer};
pub use serve::serve_if_asked;
use wire::{Answer, Task};

/// Children at most.
const RENDERERS: usize = 4;
/// Tasks that wait for a child.
const WAITING: usize = 64;
/// How long a template rests that ended its child.
const REST: Duration = Duration::from_secs(60);
/// Templates that rest at a time; more make the first ones forgotten.
const RESTING: usize = 1_024;

/// Who renders chat templates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TemplateHost {
    /// Children of this process. Its program must call [`serve_if_asked`] before anything else.
    #[default]
    ThisProgram,
    /// Children of another program, which calls [`serve_if_asked`].
    Program(PathBuf),
    /// This process, where no stranger can register a model.
    Within,
}

/// A template as a model brings it.
#[derive(Debug)]
pub(crate) struct Template {
    /// Hash of the file.
    pub(crate) hash: TensorCommitment,
    /// The file.
    pub(crate) file: String,
}

impl Template {
    /// The template in these bytes, which nobody has read yet.
    pub(crate) fn new(hash: TensorCommitment, file: Vec<u8>) -> Result<Self, TemplateError> {
        let file = String::from_utf8(file);
        let file = file.map_err(|_| TemplateError::File("it is no text".to_owned()))?;
        Ok(Self { hash, file })
    }
}

/// Why a task has no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// It is the template's doing, or the conversation's.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Too many wait.
    #[error("too many conversations wait to be rendered")]
    Busy,
    /// No child can be started.
    #[error("the process that renders chat templates does not start")]
    Start(#[source] io::Error),
}

/// The children of one coordinator, started when they are needed.
#[derive(Debug)]
pub(crate) struct Templates {
    host: TemplateHost,
    idle: Mutex<Vec<Renderer>>,
    turns: Semaphore,
    room: Semaphore,
    resting: Mutex<HashMap<TensorCommitment, Instant>>,
}

impl Templates {
    pub(crate) fn new(host: TemplateHost) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let renderers = cores.clamp(2, RENDERERS);
        Self {
            host,
            idle: Mutex::default(),
            turns: Semaphore::new(renderers),
            room: Semaphore::new(renderers + WAITING),
            resting: Mutex::default(),
        }
    }

    /// Refuses a template that does not compile.
    pub(crate) async fn compile(&self, template: Template) -> Result<(), RenderError> {
        self.run(Arc::new(template), None, UnixSeconds(0)).await.map(|_| ())
    }

    /// The prompt of a conversation.
    pub(crate) async fn render(
        &self,
        template: Arc<Template>,
        messages: Vec<ChatMessage>,
        now: UnixSeconds,
    ) -> Result<String, RenderError> {
        self.run(template, Some(messages), now).await
    }

    async fn run(
        &self,
        template: Arc<Template>,
        messages: Option<Vec<ChatMessage>>,
        now: UnixSeconds,
    ) -> Result<String, RenderError> {
        if self.rests(template.hash) {
            return Err(TemplateError::Bounds.into());
        }
        let _room = self.room.try_acquire().map_err(|_| RenderError::Busy)?;
        let _turn = self.turns.acquire().await.expect("nobody closes the semaphore");
        // Others of the same template may have found out while this one waited.
        if self.rests(template.hash) {
            return Err(TemplateError::Bounds.into());
        }
        let hash = template.hash;
        let task = move || Task { file: template.file.clone(), messages, now: now.0 };
        if self.host == TemplateHost::Within {
            let answer = tokio::task::spawn_blocking(move || task().run()).await;
            return Ok(answer.unwrap_or(Err(TemplateError::Bounds))?);
        }
        let mut renderer = self.renderer().map_err(RenderError::Start)?;
        match renderer.ask(task).await {
            Ok(answer) => {
                self.lock_idle().push(renderer);
                Ok(answer?)
            }
            Err(ended) => {
                tracing::warn!(template = %hash, reason = %ended, "a chat template ended the process that rendered it");
                // On a machine that is too busy, time may run out without the template's doing.
                if !matches!(ended, Ended::Late) {
                    self.rest(hash);
                }
                Err(TemplateError::Bounds.into())
            }
        }
    }

    /// A child that waits, or a new one.
    fn renderer(&self) -> io::Result<Renderer> {
        let mut idle = self.lock_idle();
        while let Some(mut renderer) = idle.pop() {
            if renderer.lives() {
                return Ok(renderer);
            }
        }
        drop(idle);
        Renderer::start(&self.host)
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Renderer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self, template: TensorCommitment) -> bool {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(&template).is_some_and(|since| since.elapsed() < REST)
    }

    fn rest(&self, template: TensorCommitment) {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.retain(|_, since| since.elapsed() < REST);
        if resting.len() >= RESTING {
            resting.clear();
        }
        resting.insert(template, Instant::now());
    }
}
