package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	initialKey  = "x-grpc-test-echo-initial"
	trailingKey = "x-grpc-test-echo-trailing-bin"
)

// google.rpc.Status{code: 9, message: "with details", details: [Any{type_url: "a/b", value: ff 00}]}
var details, _ = hex.DecodeString("0809120c776974682064657461696c731a090a03612f621202ff00")

// The cases the official library does not have.
var further = map[string]func(context.Context, pb.TestServiceClient) error{
	"client_compressed_unary": func(ctx context.Context, tc pb.TestServiceClient) error {
		request := &pb.SimpleRequest{ResponseSize: 314159, Payload: payload(271828), ExpectCompressed: &pb.BoolValue{Value: true}}
		if _, err := tc.UnaryCall(ctx, request); status.Code(err) != codes.InvalidArgument {
			return fmt.Errorf("the probe: %v", err)
		}
		if err := unary(ctx, tc, request, grpc.UseCompressor(gzip.Name)); err != nil {
			return err
		}
		request.ExpectCompressed.Value = false
		return unary(ctx, tc, request)
	},
	"server_compressed_unary": func(ctx context.Context, tc pb.TestServiceClient) error {
		for _, value := range []bool{true, false} {
			request := &pb.SimpleRequest{ResponseSize: 314159, Payload: payload(271828), ResponseCompressed: &pb.BoolValue{Value: value}}
			if err := unary(ctx, tc, request); err != nil {
				return err
			}
		}
		return nil
	},
	"server_compressed_streaming": func(ctx context.Context, tc pb.TestServiceClient) error {
		parameters := []*pb.ResponseParameters{
			{Size: 31415, Compressed: &pb.BoolValue{Value: true}}, {Size: 92653, Compressed: &pb.BoolValue{Value: false}},
		}
		stream, err := tc.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{ResponseParameters: parameters})
		if err != nil {
			return err
		}
		return sizes(stream, []int{31415, 92653})
	},
	"big_metadata": func(ctx context.Context, tc pb.TestServiceClient) error {
		return echo(ctx, tc, strings.Repeat("m", 20000), random(22500))
	},
	"binary_metadata": func(ctx context.Context, tc pb.TestServiceClient) error {
		every := make([]byte, 256)
		for at := range every {
			every[at] = byte(at)
		}
		for _, value := range [][]byte{{}, {0}, every, []byte("a,b, c"), random(1001)} {
			if err := echo(ctx, tc, "x", value); err != nil {
				return fmt.Errorf("%x: %w", value, err)
			}
		}
		return nil
	},
	"concurrent_300": func(ctx context.Context, tc pb.TestServiceClient) error {
		request := &pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: 10, IntervalUs: 300000}}}
		done := make(chan error, 300)
		for range 300 {
			go func() {
				stream, err := tc.StreamingOutputCall(ctx, request)
				if err == nil {
					err = sizes(stream, []int{10})
				}
				done <- err
			}()
		}
		var all []error
		for range 300 {
			all = append(all, <-done)
		}
		return errors.Join(all...)
	},
	"deadline_seen": func(ctx context.Context, tc pb.TestServiceClient) error {
		asked := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("x-test-report", "1"))
		limited, cancel := context.WithTimeout(asked, 5*time.Second)
		defer cancel()
		var trailer metadata.MD
		if _, err := tc.EmptyCall(limited, &pb.Empty{}, grpc.Trailer(&trailer)); err != nil {
			return err
		}
		left, err := strconv.Atoi(strings.Join(trailer.Get("x-test-remaining-ms"), ","))
		if err != nil || left <= 2000 || left > 5100 {
			return fmt.Errorf("the server saw %v of 5000 ms (%v)", left, err)
		}
		if _, err := tc.EmptyCall(asked, &pb.Empty{}, grpc.Trailer(&trailer)); err != nil {
			return err
		}
		return same(trailer.Get("x-test-remaining-ms"), "none")
	},
	"cancel_seen": func(ctx context.Context, tc pb.TestServiceClient) error {
		id := hex.EncodeToString(random(8))
		running, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, metadata.Pairs("x-test-id", id)))
		defer cancel()
		stream, err := tc.FullDuplexCall(running)
		if err != nil {
			return err
		}
		request := output(31415, 27182)
		request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: 1, IntervalUs: 1000000})
		if err := stream.Send(request); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		cancel()
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			return fmt.Errorf("not cancelled: %v", err)
		}
		asked := metadata.NewOutgoingContext(ctx, metadata.Pairs("x-test-was-cancelled", id))
		for range 100 {
			var trailer metadata.MD
			if _, err := tc.EmptyCall(asked, &pb.Empty{}, grpc.Trailer(&trailer)); err != nil {
				return err
			}
			if same(trailer.Get("x-test-cancelled"), "yes") == nil {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return errors.New("the server never saw the cancel")
	},
	"status_details": func(ctx context.Context, tc pb.TestServiceClient) error {
		asked := metadata.NewOutgoingContext(ctx, metadata.Pairs("x-test-details-bin", string(details)))
		_, err := tc.EmptyCall(asked, &pb.Empty{})
		if status.Code(err) != codes.FailedPrecondition {
			return fmt.Errorf("status: %v", err)
		}
		met, _ := proto.MarshalOptions{Deterministic: true}.Marshal(status.Convert(err).Proto())
		if !bytes.Equal(met, details) {
			return fmt.Errorf("details %x, expected %x", met, details)
		}
		return nil
	},
	"mebibyte_both_ways": func(ctx context.Context, tc pb.TestServiceClient) error {
		if err := unary(ctx, tc, &pb.SimpleRequest{ResponseSize: 1 << 20, Payload: payload(1 << 20)}); err != nil {
			return err
		}
		return duplex(ctx, tc, 4, 1<<20)
	},
	"stream_of_1000": func(ctx context.Context, tc pb.TestServiceClient) error {
		return duplex(ctx, tc, 1000, 100)
	},
}

func payload(size int) *pb.Payload { return &pb.Payload{Body: make([]byte, size)} }

func output(size, request int) *pb.StreamingOutputCallRequest {
	return &pb.StreamingOutputCallRequest{
		ResponseParameters: []*pb.ResponseParameters{{Size: int32(size)}}, Payload: payload(request),
	}
}

func random(size int) []byte {
	out := make([]byte, size)
	rand.Read(out)
	return out
}

func same(values []string, wanted string) error {
	if len(values) != 1 || values[0] != wanted {
		return fmt.Errorf("met %.80q, expected %.80q", values, wanted)
	}
	return nil
}

func unary(ctx context.Context, tc pb.TestServiceClient, request *pb.SimpleRequest, options ...grpc.CallOption) error {
	response, err := tc.UnaryCall(ctx, request, options...)
	if err != nil {
		return err
	}
	if size := len(response.Payload.Body); size != int(request.ResponseSize) {
		return fmt.Errorf("%d bytes, expected %d", size, request.ResponseSize)
	}
	return nil
}

func sizes(stream interface {
	Recv() (*pb.StreamingOutputCallResponse, error)
}, wanted []int) error {
	for at := 0; ; at++ {
		response, err := stream.Recv()
		if err == io.EOF && at == len(wanted) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d responses: %w", at, err)
		}
		if at >= len(wanted) || len(response.Payload.GetBody()) != wanted[at] {
			return fmt.Errorf("response %d of %d bytes", at, len(response.Payload.GetBody()))
		}
	}
}

// duplex sends `count` requests without waiting, and expects as many responses.
func duplex(ctx context.Context, tc pb.TestServiceClient, count, size int) error {
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	go func() {
		for range count {
			if stream.Send(output(size, size)) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	wanted := make([]int, count)
	for at := range wanted {
		wanted[at] = size
	}
	return sizes(stream, wanted)
}

func echo(ctx context.Context, tc pb.TestServiceClient, initial string, trailing []byte) error {
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs(initialKey, initial, trailingKey, string(trailing)))
	var header, trailer metadata.MD
	request := &pb.SimpleRequest{ResponseSize: 314159, Payload: payload(271828)}
	if err := unary(ctx, tc, request, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		return err
	}
	if err := errors.Join(same(header.Get(initialKey), initial), same(trailer.Get(trailingKey), string(trailing))); err != nil {
		return err
	}
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(output(314159, 271828)); err != nil {
		return err
	}
	stream.CloseSend()
	if err := sizes(stream, []int{314159}); err != nil {
		return err
	}
	header, _ = stream.Header()
	return errors.Join(same(header.Get(initialKey), initial), same(stream.Trailer().Get(trailingKey), string(trailing)))
}
