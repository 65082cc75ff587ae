package natskv

// KeyForm is the form that key has in a subject.
func KeyForm(key string) string { return string(appendKey(nil, key)) }
