//! The client against a scripted router: real QUIC on port 0, frames said one by one.

mod calling;
mod connecting;
mod document;
mod leaving;
mod named;
mod publishing;
mod requesting;
mod router;
mod subscribing;
