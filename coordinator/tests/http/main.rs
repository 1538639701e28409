//! The service over HTTP, as its clients meet it. Real PostgreSQL, a database a test, loopback, no sleeping.

mod auth;
mod bad_input;
mod bus;
mod disputes;
mod document;
mod embeddings;
mod events;
mod flow;
mod generation;
mod models;
mod money;
mod raw;
mod redis;
mod service;
mod templates;
mod two_coordinators;
mod webhooks;
mod world;
