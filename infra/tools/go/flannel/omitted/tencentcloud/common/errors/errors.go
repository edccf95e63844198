// Package errors has the one error that callers of the omitted library know.
package errors

// TencentCloudSDKError says that the library is not in this build.
type TencentCloudSDKError struct{}

func (*TencentCloudSDKError) Error() string {
	return "the tencent-vpc backend is not in this build of flanneld"
}
