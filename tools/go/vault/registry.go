package main

import (
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// registry offers the engines to Vault's catalogue of plugins.
type registry struct{}

func (registry) backends(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeCredential:
		return credentials
	case consts.PluginTypeSecrets:
		return engines
	}
	return nil
}

func (r registry) Contains(name string, kind consts.PluginType) bool {
	_, found := r.backends(kind)[name]
	return found
}

func (r registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, found := r.backends(kind)[name]
	return func() (interface{}, error) { return factory, nil }, found
}

func (r registry) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range r.backends(kind) {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
