"""The sealer: replays journals into the store; content-defined chunks. Knows nothing of the daemon's memory."""
