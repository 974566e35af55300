"""
    Batches(net, batchsize, seed, shuffled)

Batches of the samples of `net`, in their own order or in a new random one each epoch (Fisher and Yates, from the last
place down, by the generator of [`random_params`](@ref)); the last one of an epoch is smaller where `batchsize` does
not divide the number of samples. `net` here is a network with the layers, loss and regularisers of the other, whose
samples are overwritten: everything that nets can do is done to a batch. `whole` is `net` under the constraint of the
descent, if there is one.
"""
Base.@kwdef mutable struct Batches{T}
    source::Net{T}
    net::Net{T}
    whole::AbstractNet{T} = net
    size::Int
    order::Vector{Int} = collect(1:source.n_samples)
    position::Int = length(order)       # samples of this epoch that have been used
    rng::Xoshiro256
    shuffled::Bool
end

function Batches(source::Net{T}, batchsize::Int, seed, shuffled) where {T}
    check_data(source)
    shape = (zeros(T, n_features(source), batchsize), zeros(T, n_outputs(source), batchsize))
    net = on(source, shape...)
    return Batches{T}(source=source, net=net, size=batchsize, rng=Xoshiro256(seed), shuffled=shuffled)
end

function shuffle!(order::Vector{Int}, rng::Xoshiro256)
    @inbounds for i in length(order):-1:2
        j = 1 + floor(Int, uniform!(rng) * i)
        order[i], order[j] = order[j], order[i]
    end
    return order
end

"Put the next batch into `batches.net`."
function next!(batches::Batches)
    source, net, N = batches.source, batches.net, length(batches.order)
    if batches.position == N
        batches.shuffled && shuffle!(batches.order, batches.rng)
        batches.position = 0
    end
    m = min(batches.size, N - batches.position)
    for k in 1:m
        copy_sample!(net, k, source, @inbounds batches.order[batches.position+k])
    end
    for k in m+1:batches.size       # what a smaller batch leaves over does not count
        block, r = place(net, k)
        block.w[r] = 0
    end
    net.n_samples = m
    batches.position += m
    return batches.whole
end

# Where the batches are, as numbers; a 64-bit word of the generator in two halves, which a Float64 holds.
remembered(::Nothing) = Float64[]
recall!(::Nothing, numbers) = nothing
remembered(b::Batches) =
    Float64[b.position; [half for word in words(b.rng) for half in (word >> 32, word & 0xffffffff)]; b.order]
function recall!(b::Batches, numbers)
    b.position = numbers[1]
    b.rng = Xoshiro256((UInt64(numbers[2k]) << 32 | UInt64(numbers[2k+1]) for k in 1:4)...)
    copyto!(b.order, numbers[10:end])
    return nothing
end
words(rng::Xoshiro256) = (rng.s0, rng.s1, rng.s2, rng.s3)

place(net::Net, i::Int) = (net.blocks[(i-1)÷BLOCK+1], (i - 1) % BLOCK + 1)

function copy_sample!(to::Net, k::Int, from::Net, i::Int)
    (a, r), (b, s) = place(to, k), place(from, i)
    @inbounds for d in 1:n_features(to)
        a.X[r, d] = b.X[s, d]
    end
    @inbounds for o in 1:n_outputs(to)
        a.Y[r, o] = b.Y[s, o]
    end
    @inbounds a.w[r] = b.w[s]
    return nothing
end

"No batches where all samples, or infinitely many, are seen at once."
make_batches(net::AbstractNet, batchsize, seed, shuffled) = batchsize === nothing ? nothing :
    throw(ArgumentError("batchsize is $batchsize, but infinite data have no samples to choose from: leave it out"))
function make_batches(net::ConstrainedNet, batchsize, seed, shuffled)
    batches = make_batches(net.net, batchsize, seed, shuffled)
    batches === nothing || (batches.whole = ConstrainedNet(batches.whole, net.constraint))
    return batches
end
function make_batches(net::Net, batchsize, seed, shuffled)
    batchsize === nothing && return nothing
    batchsize >= 1 || throw(ArgumentError("batchsize is $batchsize; at least 1 is needed"))
    batchsize >= n_samples(net) && return nothing
    net.objective isa Correlation && (batchsize == 1 || n_samples(net) % batchsize == 1) && throw(ArgumentError(
        "batchsize is $batchsize, which leaves one of $(n_samples(net)) samples alone in a batch, where nothing has " *
        "a correlation: choose one of at least 2 that does not"))
    return Batches(net, Int(batchsize), seed, shuffled)
end
