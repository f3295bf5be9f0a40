package main

import "google.golang.org/protobuf/encoding/protowire"

func appendString(message []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(message, field, protowire.BytesType), value)
}

func appendBytes(message []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(message, field, protowire.BytesType), value)
}

// forEachBytes calls `visit` with every field of type string, bytes or message. It stops where the
// message is broken.
func forEachBytes(message []byte, visit func(field protowire.Number, value []byte)) {
	for len(message) > 0 {
		number, kind, tagLen := protowire.ConsumeTag(message)
		if tagLen < 0 {
			return
		}
		message = message[tagLen:]
		valueLen := protowire.ConsumeFieldValue(number, kind, message)
		if valueLen < 0 {
			return
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			visit(number, value)
		}
		message = message[valueLen:]
	}
}

// deltaRequest is an envoy.service.discovery.v3.DeltaDiscoveryRequest.
type deltaRequest struct {
	nodeID, typeURL string
	subscribe       []string
	nonce           string
}

func (r deltaRequest) encode() []byte {
	var message []byte
	if r.nodeID != "" {
		message = appendBytes(message, 1, appendString(nil, 1, r.nodeID))
	}
	message = appendString(message, 2, r.typeURL)
	for _, name := range r.subscribe {
		message = appendString(message, 3, name)
	}
	if r.nonce != "" {
		message = appendString(message, 6, r.nonce)
	}
	return message
}

// deltaResponse is what is needed of an envoy.service.discovery.v3.DeltaDiscoveryResponse.
type deltaResponse struct {
	typeURL, nonce string
	names          []string
}

func decodeResponse(message []byte) deltaResponse {
	var response deltaResponse
	forEachBytes(message, func(field protowire.Number, value []byte) {
		switch field {
		case 2:
			forEachBytes(value, func(field protowire.Number, value []byte) {
				if field == 3 {
					response.names = append(response.names, string(value))
				}
			})
		case 4:
			response.typeURL = string(value)
		case 5:
			response.nonce = string(value)
		}
	})
	return response
}
