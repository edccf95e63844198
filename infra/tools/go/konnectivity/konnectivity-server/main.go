// The tunnel server of apiserver-network-proxy, for a listener of agents whose certificate is
// renewed while tunnels are open.
//
// Upstream's own command reads the certificate once, so that a renewal would end every stream. All
// that tunnels consist of is upstream's; this command only listens, and has the flags that it needs.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/proto/client"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server/proxystrategies"
	"sigs.k8s.io/apiserver-network-proxy/proto/agent"
)

const (
	// As upstream's command has them.
	frontendKeepalive = time.Hour
	transferChannel   = 10
	// Agents that ping more often are cut off.
	leastPingInterval = 30 * time.Second
	headerTimeout     = 10 * time.Second
)

type settings struct {
	serverID, udsName                      string
	agentAddress, statusAddress            string
	certificate, key                       string
	kubeconfig                             string
	kubeconfigQPS                          float64
	kubeconfigBurst                        int
	agentNamespace, agentAccount, audience string
	strategies                             string
	keepalive, dialTimeout                 time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.serverID, "server-id", "", "how agents tell servers apart")
	flag.StringVar(&s.udsName, "uds-name", "", "the socket at which the API server asks")
	flag.StringVar(&s.agentAddress, "agent-address", "", "host:port for agents")
	flag.StringVar(&s.statusAddress, "status-address", "", "host:port of /metrics and /healthz")
	flag.StringVar(&s.certificate, "cluster-cert", "", "certificate shown to agents")
	flag.StringVar(&s.key, "cluster-key", "", "its key")
	flag.StringVar(&s.kubeconfig, "kubeconfig", "", "for the reviews of agents' tokens")
	flag.Float64Var(&s.kubeconfigQPS, "kubeconfig-qps", 5, "reviews a second")
	flag.IntVar(&s.kubeconfigBurst, "kubeconfig-burst", 10, "reviews at once")
	flag.StringVar(&s.agentNamespace, "agent-namespace", "", "of the agents' ServiceAccount")
	flag.StringVar(&s.agentAccount, "agent-service-account", "", "its name")
	flag.StringVar(&s.audience, "authentication-audience", "", "of the agents' tokens")
	flag.StringVar(&s.strategies, "proxy-strategies", "default", "how an agent is chosen")
	flag.DurationVar(&s.keepalive, "keepalive-time", time.Hour, "after which a quiet agent is pinged")
	flag.DurationVar(&s.dialTimeout, "backend-dial-timeout", 10*time.Second, "for an agent's dial")
	klog.InitFlags(nil)
	flag.Parse()
	err := run(&s)
	klog.ErrorS(err, "the tunnel server ends")
	klog.Flush()
	os.Exit(1)
}

// run serves until a listener fails.
func run(s *settings) error {
	proxy, err := newProxy(s)
	if err != nil {
		return err
	}
	certificate := &reloaded{certificate: s.certificate, key: s.key}
	if _, err := certificate.load(nil); err != nil {
		return err
	}
	frontend, err := listenForAPIServer(s.udsName)
	if err != nil {
		return err
	}
	agents, err := net.Listen("tcp", s.agentAddress)
	if err != nil {
		return err
	}
	status, err := net.Listen("tcp", s.statusAddress)
	if err != nil {
		return err
	}
	ended := make(chan error)
	go func() { ended <- serveAPIServer(frontend, proxy) }()
	go func() { ended <- serveAgents(agents, proxy, certificate, s.keepalive) }()
	go func() { ended <- serveStatus(status) }()
	return <-ended
}

func newProxy(s *settings) (*server.ProxyServer, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = float32(s.kubeconfigQPS), s.kubeconfigBurst
	reviews, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	strategies, err := proxystrategies.ParseProxyStrategies(s.strategies)
	if err != nil {
		return nil, err
	}
	if s.agentNamespace == "" || s.agentAccount == "" || s.audience == "" {
		return nil, fmt.Errorf("agents need a namespace, a ServiceAccount and an audience")
	}
	authentication := &server.AgentTokenAuthenticationOptions{
		Enabled:                true,
		AgentNamespace:         s.agentNamespace,
		AgentServiceAccount:    s.agentAccount,
		AuthenticationAudience: s.audience,
		KubernetesClient:       reviews,
	}
	proxy := server.NewProxyServer(s.serverID, strategies, 1, authentication, transferChannel)
	proxy.SetBackendDialTimeout(s.dialTimeout)
	return proxy, nil
}

// listenForAPIServer makes the socket anew: nobody else may have it open for the API server.
func listenForAPIServer(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}

func serveAPIServer(listener net.Listener, proxy *server.ProxyServer) error {
	frontend := grpc.NewServer(
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: frontendKeepalive}),
	)
	client.RegisterProxyServiceServer(frontend, proxy)
	return frontend.Serve(listener)
}

func serveAgents(
	listener net.Listener, proxy *server.ProxyServer, certificate *reloaded, ping time.Duration,
) error {
	agents := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: certificate.load,
		})),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: ping}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             leastPingInterval,
			PermitWithoutStream: true,
		}),
	)
	agent.RegisterAgentServiceServer(agents, proxy)
	return agents.Serve(listener)
}

func serveStatus(listener net.Listener) error {
	handler := http.NewServeMux()
	handler.Handle("/metrics", promhttp.Handler())
	handler.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(answer, "ok")
	})
	status := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	return status.Serve(listener)
}

// reloaded reads a certificate for each agent that connects, which happens once in its life.
type reloaded struct {
	certificate, key string
	last             atomic.Pointer[tls.Certificate]
}

// load returns the last good pair while the two files do not fit: they are written one by one.
func (r *reloaded) load(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(r.certificate, r.key)
	if err == nil {
		r.last.Store(&pair)
		return &pair, nil
	}
	if last := r.last.Load(); last != nil {
		klog.ErrorS(err, "the certificate cannot be read; agents are shown the last one")
		return last, nil
	}
	return nil, err
}
