// The interop test service in grpc-go: the official implementation (google.golang.org/grpc/interop), with
// the features of PROTOCOL.md added by interceptors.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

var cancelled sync.Map

func first(md metadata.MD, name string) (string, bool) {
	values := md.Get(name)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// before does what request metadata asks for; the error, if any, ends the call.
func before(ctx context.Context, trailer func(metadata.MD)) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if _, ok := first(md, "x-test-report"); ok {
		left := "none"
		if deadline, ok := ctx.Deadline(); ok {
			left = strconv.FormatInt(time.Until(deadline).Milliseconds(), 10)
		}
		trailer(metadata.Pairs("x-test-remaining-ms", left))
	}
	if id, ok := first(md, "x-test-was-cancelled"); ok {
		answer := "no"
		if _, found := cancelled.Load(id); found {
			answer = "yes"
		}
		trailer(metadata.Pairs("x-test-cancelled", answer))
	}
	if details, ok := first(md, "x-test-details-bin"); ok {
		var full spb.Status
		if err := proto.Unmarshal([]byte(details), &full); err != nil {
			return err
		}
		return status.FromProto(&full).Err()
	}
	return nil
}

// flags remembers whether the last received message of a call was compressed.
type flags struct{ compressed atomic.Bool }

type flagsKey struct{}

// watch files each received message's flag with its call.
type watch struct{}

func (watch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (watch) HandleConn(context.Context, stats.ConnStats)                       {}
func (watch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, flagsKey{}, &flags{})
}
func (watch) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok {
		ctx.Value(flagsKey{}).(*flags).compressed.Store(in.CompressedLength != in.Length)
	}
}

func expect(ctx context.Context, wanted *pb.BoolValue) error {
	if wanted.GetValue() && !ctx.Value(flagsKey{}).(*flags).compressed.Load() {
		return status.Error(codes.InvalidArgument, "the message is not compressed")
	}
	return nil
}

func unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := before(ctx, func(md metadata.MD) { grpc.SetTrailer(ctx, md) }); err != nil {
		return nil, err
	}
	if simple, ok := req.(*pb.SimpleRequest); ok {
		if err := expect(ctx, simple.ExpectCompressed); err != nil {
			return nil, err
		}
		if simple.ResponseCompressed.GetValue() {
			if err := grpc.SetSendCompressor(ctx, "gzip"); err != nil {
				return nil, err
			}
		}
	}
	return handler(ctx, req)
}

// checked looks at each message for `expect_compressed`.
type checked struct{ grpc.ServerStream }

func (s checked) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	if input, ok := message.(*pb.StreamingInputCallRequest); ok {
		return expect(s.Context(), input.ExpectCompressed)
	}
	return nil
}

func stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := before(ss.Context(), ss.SetTrailer); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(ss.Context())
	if id, ok := first(md, "x-test-id"); ok {
		stop := context.AfterFunc(ss.Context(), func() { cancelled.Store(id, true) })
		defer stop()
	}
	return handler(srv, checked{ss})
}

// The lab of a raw port gives its own address.
func host() string {
	if given := os.Getenv("TOWPATH_TEST_HOST"); given != "" {
		return given
	}
	return "127.0.0.1"
}

func main() {
	port := flag.Int("port", 0, "")
	streams := flag.Uint("max_streams", 0, "")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host(), *port))
	if err != nil {
		log.Fatal(err)
	}
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream), grpc.StatsHandler(watch{}),
		grpc.MaxRecvMsgSize(8 << 20),
	}
	if *streams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(*streams)))
	}
	server := grpc.NewServer(options...)
	pb.RegisterTestServiceServer(server, interop.NewTestServer())
	fmt.Printf("listening %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(server.Serve(listener))
}
