// Package stack runs what a cluster has: etcd, kube-apiserver and istiod, on free ports of 127.0.0.1 and without
// containers. Objects are written by server-side apply, as a user of kubectl would.
package stack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/istio-plugins/istio-plugins/e2e/loopback"
	"github.com/istio-plugins/istio-plugins/e2e/process"
)

const (
	// startTimeout bounds the start of one program. On two cores etcd takes 0.2 s, kube-apiserver 4 s, istiod 3 s.
	startTimeout = 2 * time.Minute
	// stopGrace is what a program gets to end before it is killed. kube-apiserver waits some seconds for its watches.
	stopGrace = 5 * time.Second
	// token is the administrator's. The API server listens on 127.0.0.1 only and ends with the test.
	token = "admin"
)

// Options say which programs to run.
type Options struct {
	// Bin is the folder of kube-apiserver and pilot-discovery. etcd is taken from the PATH.
	Bin string
	// Dir is an existing folder for data and logs.
	Dir string
	// CRDs are files and folders of CustomResourceDefinitions.
	CRDs []string
	// APIServer are more flags of kube-apiserver.
	APIServer []string
	// WithoutIstiod starts the API server only.
	WithoutIstiod bool
	// Progress is told what happens, in short sentences; nil for nobody.
	Progress func(string)
	// Detached programs live on when this one ends.
	Detached bool
}

// Stack is a running control plane.
type Stack struct {
	// Config is the administrator's.
	Config *rest.Config
	// Kubeconfig is a file with the same.
	Kubeconfig string

	options Options
	client  dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	xds     string
	tlsXDS  string
	debug   string
	metrics string
	// processes in the order of their start.
	processes []*process.Process
	istiod    *process.Process
	apiServer *process.Process
	// apiFlags are the API server's.
	apiFlags []string

	mu sync.Mutex
	// namespaces that were made.
	namespaces map[string]bool
}

// Start returns when the last of the programs is ready. On an error everything that was started has ended.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	var err error
	// Programs run in other folders than this one.
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return nil, err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	s := &Stack{options: o, namespaces: map[string]bool{}}
	parts := []func(context.Context) error{s.startAPI, s.connect, s.installCRDs}
	if !o.WithoutIstiod {
		parts = append(parts, s.configureMesh, s.startIstiod)
	}
	for _, begin := range parts {
		if err := begin(ctx); err != nil {
			s.Stop()
			return nil, err
		}
	}
	return s, nil
}

// XDS is istiod's address for gateways.
func (s *Stack) XDS() string { return s.xds }

// TLSXDS is the same by TLS, where istiod wants to know who asks.
func (s *Stack) TLSXDS() string { return s.tlsXDS }

// Debug is the URL of istiod's debug interface.
func (s *Stack) Debug() string { return "http://" + s.debug }

// Metrics is the URL of istiod's metrics.
func (s *Stack) Metrics() string { return "http://" + s.metrics + "/metrics" }

// Stop ends the programs in the reverse order of their start: an API server without its etcd does not end in time.
func (s *Stack) Stop() {
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].Stop(stopGrace)
	}
	s.processes = nil
}

// PIDs are the ids of the running programs, in the order in which they are to be ended.
func (s *Stack) PIDs() []int {
	var ids []int
	for i := len(s.processes) - 1; i >= 0; i-- {
		ids = append(ids, s.processes[i].PID())
	}
	return ids
}

// startAPI starts etcd and kube-apiserver.
func (s *Stack) startAPI(ctx context.Context) error {
	s.options.Progress("etcd")
	etcdURL, err := s.startEtcd(ctx)
	if err != nil {
		return err
	}
	s.options.Progress("kube-apiserver")
	return s.startAPIServer(ctx, etcdURL)
}

func (s *Stack) startEtcd(ctx context.Context) (url string, err error) {
	client, peer := "http://"+loopback.Address(loopback.Port()), "http://"+loopback.Address(loopback.Port())
	cmd := exec.Command("etcd", "--data-dir", filepath.Join(s.options.Dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	_, err = s.start(ctx, "etcd", cmd, func(ctx context.Context) error { return process.Answers(ctx, http.DefaultClient, client+"/health") })
	return client, err
}

func (s *Stack) startAPIServer(ctx context.Context, etcdURL string) error {
	dir := filepath.Join(s.options.Dir, "kube-apiserver")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keyFile, tokenFile := filepath.Join(dir, "service-account.key"), filepath.Join(dir, "tokens.csv")
	if err := writeKey(keyFile); err != nil {
		return err
	}
	if err := os.WriteFile(tokenFile, []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	port := loopback.Port()
	s.Config = &rest.Config{
		Host:            "https://" + loopback.Address(port),
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // It signs its certificate itself, at its start.
		QPS:             -1,
		WarningHandler:  rest.NoWarnings{},
	}
	s.apiFlags = []string{
		"--etcd-servers=" + etcdURL, fmt.Sprintf("--secure-port=%d", port), "--bind-address=127.0.0.1", "--cert-dir=" + dir,
		"--service-account-key-file=" + keyFile, "--service-account-signing-key-file=" + keyFile,
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC", "--token-auth-file=" + tokenFile,
		"--service-cluster-ip-range=10.0.0.0/24",
		// Nothing runs pods here, and nobody makes the service accounts that this plugin waits for.
		"--disable-admission-plugins=ServiceAccount",
	}
	s.apiFlags = append(s.apiFlags, s.options.APIServer...)
	return s.StartAPIServer(ctx)
}

// connect makes the clients and the kubeconfig.
func (s *Stack) connect(context.Context) error {
	var err error
	if s.client, err = dynamic.NewForConfig(s.Config); err != nil {
		return err
	}
	found, err := discovery.NewDiscoveryClientForConfig(s.Config)
	if err != nil {
		return err
	}
	s.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	s.Kubeconfig = filepath.Join(s.options.Dir, "kubeconfig")
	config := clientcmdapi.NewConfig()
	config.Clusters["e2e"] = &clientcmdapi.Cluster{Server: s.Config.Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["e2e"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: "e2e"}
	config.CurrentContext = "e2e"
	return clientcmd.WriteToFile(*config, s.Kubeconfig)
}

// startIstiod starts Istio's control plane.
func (s *Stack) startIstiod(ctx context.Context) error {
	s.options.Progress("istiod")
	for _, address := range []*string{&s.xds, &s.tlsXDS, &s.debug, &s.metrics} {
		*address = loopback.Address(loopback.Port())
	}
	return s.StartIstiod(ctx)
}

// StartIstiod starts istiod again, where it was before it was killed.
func (s *Stack) StartIstiod(ctx context.Context) error {
	cmd := exec.Command(filepath.Join(s.options.Bin, "pilot-discovery"), "discovery",
		"--kubeconfig", s.Kubeconfig, "--namespace", rootNamespace, "--clusterID", "Kubernetes",
		"--httpAddr", s.debug, "--grpcAddr", s.xds, "--httpsAddr", "", "--secureGRPCAddr", s.tlsXDS, "--monitoringAddr", s.metrics,
		"--ctrlz_port", "0", "--log_output_level", "default:warn")
	// istiod writes its CA's certificates below its working folder.
	cmd.Dir = s.options.Dir
	cmd.Env = append(os.Environ(),
		"POD_NAMESPACE="+rootNamespace, "POD_NAME=istiod", "REVISION=default",
		"INJECTION_WEBHOOK_CONFIG_NAME=", "VALIDATION_WEBHOOK_CONFIG_NAME=",
		// The public Envoy lacks the filters that istio-proxy adds.
		"PILOT_ENABLE_ALPN_FILTER=false", "PILOT_ENABLE_METADATA_EXCHANGE=false")
	var err error
	s.istiod, err = s.start(ctx, "istiod", cmd, func(ctx context.Context) error { return process.Answers(ctx, http.DefaultClient, s.Debug()+"/ready") })
	return err
}

// RestartIstiod ends istiod in order and starts it anew at the same addresses.
func (s *Stack) RestartIstiod(ctx context.Context) error {
	if s.istiod == nil {
		return errors.New("istiod does not run")
	}
	s.istiod.Stop(stopGrace)
	s.forget(s.istiod)
	return s.StartIstiod(ctx)
}

// KillIstiod ends istiod as kill -9 does.
func (s *Stack) KillIstiod() {
	s.istiod.Kill()
	s.forget(s.istiod)
}

// StartAPIServer starts kube-apiserver, also again after it was killed: what it knows is in etcd.
func (s *Stack) StartAPIServer(ctx context.Context) error {
	client, err := rest.HTTPClientFor(s.Config)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.options.Bin, "kube-apiserver"), s.apiFlags...)
	ready := func(ctx context.Context) error { return process.Answers(ctx, client, s.Config.Host+"/readyz") }
	s.apiServer, err = s.start(ctx, "kube-apiserver", cmd, ready)
	return err
}

// KillAPIServer ends kube-apiserver as kill -9 does.
func (s *Stack) KillAPIServer() {
	s.apiServer.Kill()
	s.forget(s.apiServer)
}

func (s *Stack) forget(p *process.Process) {
	s.processes = slices.DeleteFunc(s.processes, func(q *process.Process) bool { return p == q })
}

// start starts a program and returns when it is ready.
func (s *Stack) start(ctx context.Context, name string, cmd *exec.Cmd, ready func(context.Context) error) (*process.Process, error) {
	p, err := process.Start(name, filepath.Join(s.options.Dir, name+".log"), cmd, s.options.Detached)
	if err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p, p.Await(ctx, ready)
}
