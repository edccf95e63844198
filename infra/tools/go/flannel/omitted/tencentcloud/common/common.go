// Package common stands in for a cloud's client library, which no node of ours calls.
package common

// StringPtr points to a string.
func StringPtr(value string) *string { return &value }

// StringPtrs points to each string.
func StringPtrs(values []string) []*string {
	pointers := make([]*string, len(values))
	for index := range values {
		pointers[index] = &values[index]
	}
	return pointers
}

// BoolPtr points to a bool.
func BoolPtr(value bool) *bool { return &value }
