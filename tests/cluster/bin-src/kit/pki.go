// The cluster's certificates: one CA for the cluster, one for the aggregation layer, as kubeadm has them.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type keyPair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	certPEM     []byte
	keyPEM      []byte
}

// issue signs a certificate with ca, or makes a new CA when ca is nil. Names make it a server's.
func issue(ca *keyPair, commonName string, group string, names ...string) *keyPair {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber:          must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if group != "" {
		template.Subject.Organization = []string{group}
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(names) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	parent, signer := template, key
	if ca == nil {
		template.IsCA, template.ExtKeyUsage = true, nil
		template.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	} else {
		parent, signer = ca.certificate, ca.key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer))
	return &keyPair{must(x509.ParseCertificate(der)), key, encode("CERTIFICATE", der), encodeKey(key)}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) []byte {
	return encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
}

func makePKI(dir, node string, ips []string) {
	check(os.MkdirAll(dir, 0o700))
	write := func(name string, content []byte) { check(os.WriteFile(filepath.Join(dir, name), content, 0o600)) }
	save := func(name string, pair *keyPair) {
		write(name+".crt", pair.certPEM)
		write(name+".key", pair.keyPEM)
	}
	ca := issue(nil, "kubernetes-ca", "")
	frontProxyCA := issue(nil, "front-proxy-ca", "")
	save("ca", ca)
	save("front-proxy-ca", frontProxyCA)
	save("front-proxy-client", issue(frontProxyCA, "front-proxy-client", ""))
	apiNames := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost", node, "127.0.0.1"}
	save("apiserver", issue(ca, "kube-apiserver", "", append(apiNames, ips...)...))
	save("apiserver-kubelet-client", issue(ca, "kube-apiserver-kubelet-client", "system:masters"))
	save("kubelet", issue(ca, "system:node:"+node, "system:nodes", append([]string{node, "127.0.0.1"}, ips...)...))

	serviceAccounts := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	write("sa.key", encodeKey(serviceAccounts))
	write("sa.pub", encode("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(&serviceAccounts.PublicKey))))

	for _, user := range []struct{ file, name, group string }{
		{"admin", "kubernetes-admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", "system:node-proxier"},
		{"kubelet", "system:node:" + node, "system:nodes"},
	} {
		write(user.file+".kubeconfig", kubeconfig(ips[0], ca, issue(ca, user.name, user.group)))
	}
}

func kubeconfig(server string, ca, user *keyPair) []byte {
	base64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: leno, cluster: {server: "https://%s:6443", certificate-authority-data: %s}}]
users: [{name: user, user: {client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: leno, context: {cluster: leno, user: user}}]
current-context: leno
`, server, base64(ca.certPEM), base64(user.certPEM), base64(user.keyPEM))
}

func makeServerCertificate(dir, name string) {
	check(os.MkdirAll(dir, 0o700))
	pair := issue(nil, name, "", name)
	check(os.WriteFile(filepath.Join(dir, "tls.crt"), pair.certPEM, 0o600))
	check(os.WriteFile(filepath.Join(dir, "tls.key"), pair.keyPEM, 0o600))
}
