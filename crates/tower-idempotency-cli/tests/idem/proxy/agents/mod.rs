//! Agents that pay through the official SDKs of MCP, of which one side or both know nothing of the proxy between them.

mod checked;
mod network;
mod payments;
mod sdk;
