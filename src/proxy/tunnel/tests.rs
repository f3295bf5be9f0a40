//! Tunnels, by themselves.
