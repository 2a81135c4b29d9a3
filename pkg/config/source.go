package config

// Hidden stands for a value that must not be shown.
const Hidden = "(hidden)"

// Source says that a part of a config comes from a Secret.
type Source struct {
	// Path of the part, step by step; none for the whole config.
	Path []string
	// Place of the reference in the Plugin.
	Place string
	// Secret as namespace/name, and the key in it.
	Secret, Key string
}
