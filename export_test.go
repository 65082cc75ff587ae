package l2cache

// Idle reports whether nobody watches.
func (h *Hub) Idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) == 0
}

// AdaptersByScheme are this module's packages by the schemes that they register, as the
// error of an unknown scheme has them.
func AdaptersByScheme() map[string]string { return adapters }
