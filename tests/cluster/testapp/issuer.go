// An issuer of JSON Web Tokens, honest or not as it is asked: its keys under /jwks, tokens under /token.
//
// /token?alg=RS256&claims={"sub":"a"}  signed with the key that /jwks shows
// alg: RS256, ES256, EdDSA; HS256, whose secret is the RSA key's public PEM, as in the confusion of the two; none
// &key=other                           signed with a key nobody knows, under the known key's id
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net/http"
)

// signingKeys is one key for each algorithm.
type signingKeys struct {
	rsa     *rsa.PrivateKey
	ecdsa   *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
}

func newSigningKeys() (signingKeys, error) {
	var keys signingKeys
	var err error
	if keys.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return keys, err
	}
	if keys.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return keys, err
	}
	_, keys.ed25519, err = ed25519.GenerateKey(rand.Reader)
	return keys, err
}

// issuer knows the keys it shows and, to deceive with, others.
type issuer struct{ known, other signingKeys }

func newIssuer() (*issuer, error) {
	known, err := newSigningKeys()
	if err != nil {
		return nil, err
	}
	other, err := newSigningKeys()
	return &issuer{known, other}, err
}

func runIssuer(args []string) error {
	flags := flag.NewFlagSet("issuer", flag.ContinueOnError)
	port := flags.Int("port", 8080, "")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	issuer, err := newIssuer()
	if err != nil {
		return err
	}
	server := &http.Server{Addr: fmt.Sprintf(":%d", *port), Handler: issuer.routes()}
	return serveUntilTerminated(server, server.ListenAndServe)
}

func (i *issuer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Println("asked for its keys")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(i.known.public())
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		keys := i.known
		if r.URL.Query().Get("key") == "other" {
			keys = i.other
		}
		token, err := keys.token(r.URL.Query().Get("alg"), r.URL.Query().Get("claims"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprint(w, token)
	})
	return mux
}

// public is the JSON Web Key Set of these keys (RFC 7517).
func (k signingKeys) public() map[string]any {
	point, _ := k.ecdsa.PublicKey.Bytes() // 0x04, x, y: a key that was made is on its curve
	return map[string]any{"keys": []map[string]string{
		{"kid": "RS256", "kty": "RSA", "use": "sig", "alg": "RS256", "n": encode(k.rsa.N.Bytes()), "e": encode(big.NewInt(int64(k.rsa.E)).Bytes())},
		{"kid": "ES256", "kty": "EC", "use": "sig", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])},
		{"kid": "EdDSA", "kty": "OKP", "use": "sig", "crv": "Ed25519", "x": encode(k.ed25519.Public().(ed25519.PublicKey))},
	}}
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// token is a JSON Web Signature in its compact form (RFC 7515).
func (k signingKeys) token(algorithm, claims string) (string, error) {
	if !json.Valid([]byte(claims)) {
		return "", fmt.Errorf("want ?claims=JSON, got %q", claims)
	}
	kid := algorithm
	if algorithm == "HS256" {
		kid = "RS256" // whoever takes the key by its id takes the RSA key
	}
	header, err := json.Marshal(map[string]string{"alg": algorithm, "kid": kid, "typ": "JWT"})
	if err != nil {
		return "", err
	}
	signed := encode(header) + "." + encode([]byte(claims))
	signature, err := k.sign(algorithm, []byte(signed))
	return signed + "." + encode(signature), err
}

func (k signingKeys) sign(algorithm string, text []byte) ([]byte, error) {
	hash := sha256.Sum256(text)
	switch algorithm {
	case "RS256":
		return rsa.SignPKCS1v15(rand.Reader, k.rsa, crypto.SHA256, hash[:])
	case "ES256":
		r, s, err := ecdsa.Sign(rand.Reader, k.ecdsa, hash[:])
		if err != nil {
			return nil, err
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return signature, nil
	case "EdDSA":
		return ed25519.Sign(k.ed25519, text), nil
	case "HS256":
		der, err := x509.MarshalPKIXPublicKey(k.rsa.Public())
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		mac.Write(text)
		return mac.Sum(nil), nil
	case "none":
		return nil, nil
	}
	return nil, fmt.Errorf("want ?alg=RS256, ES256, EdDSA, HS256 or none, got %q", algorithm)
}
